import {
  createLocalJWKSet,
  createRemoteJWKSet,
  errors,
  type JSONWebKeySet,
  type JWKSCacheInput,
  type JWTVerifyGetKey,
  jwksCache,
} from "jose";

/** Timeout of a fetch of the issuer's keys, ms. */
const KEYS_FETCH_TIMEOUT_MS = 2_000;
/** How long fetched keys are used without another fetch, ms. A revoked key stays valid for up to this time. */
const KEYS_MAX_AGE_MS = 600_000;
/** Minimum interval between fetches for an unknown key, and between retries while the issuer is unavailable, ms. */
const KEYS_COOLDOWN_MS = 30_000;
/** How long the last keys are used while the issuer is unavailable, ms: four hours, enough for a repair. */
const KEYS_OUTAGE_MS = 14_400_000;

/** Whether the token itself is invalid. jose gives such errors a code of their own, and a failed fetch of keys none. */
export function isInvalidToken(error: unknown): boolean {
  return (
    error instanceof errors.JOSEError &&
    error.code !== errors.JOSEError.code &&
    !(error instanceof errors.JWKSTimeout) &&
    !(error instanceof errors.JWKSInvalid)
  );
}

/** Called at most every 30 s while the issuer is unavailable and its last keys are used. */
export type OnIssuerUnavailable = (error: unknown) => void;

/**
 * The keys that an issuer publishes at a URL. While the issuer is unavailable, the last fetched keys are used, so that an
 * outage of the issuer does not stop Orders. Rejects with an error that satisfies `isInvalidToken` if no key matches, and
 * with another error if no keys are available.
 */
export function createIssuerKeys(url: URL, onUnavailable: OnIssuerUnavailable): JWTVerifyGetKey {
  const cache: JWKSCacheInput = {};
  const remote = createRemoteJWKSet(url, {
    timeoutDuration: KEYS_FETCH_TIMEOUT_MS,
    cacheMaxAge: KEYS_MAX_AGE_MS,
    cooldownDuration: KEYS_COOLDOWN_MS,
    [jwksCache]: cache,
  });
  let failure: { readonly error: unknown; readonly atMs: number } | undefined;
  return async (header, token) => {
    const now = Date.now();
    const last = (): JSONWebKeySet | undefined =>
      now - (cache["uat"] ?? 0) < KEYS_OUTAGE_MS ? remote.jwks() : undefined;
    const hasCooledDown = failure === undefined || now - failure.atMs >= KEYS_COOLDOWN_MS;
    if (remote.fresh || hasCooledDown || last() === undefined) {
      try {
        const key = await remote(header, token);
        failure = undefined;
        return key;
      } catch (error) {
        if (isInvalidToken(error)) throw error;
        if (hasCooledDown) {
          failure = { error, atMs: now };
          if (last() !== undefined) onUnavailable(error);
        }
      }
    }
    const error = failure?.error;
    const keys = last();
    if (keys === undefined) throw error;
    // A key that is not among the last ones may be new, so the token is not known to be invalid.
    return await createLocalJWKSet(keys)(header, token).catch(() => {
      throw error;
    });
  };
}
