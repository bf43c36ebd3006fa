import {
  createLocalJWKSet,
  createRemoteJWKSet,
  errors,
  type JSONWebKeySet,
  type JWKSCacheInput,
  type JWTVerifyGetKey,
  jwksCache,
} from "jose";

/** Milliseconds that the issuer's keys may take to come. */
const KEYS_MS_MAX = 2_000;
/** Milliseconds that fetched keys are taken without another look: so long a withdrawn key lives on. */
const KEYS_KEPT_MS = 600_000;
/** Milliseconds from a fetch to the next that is no more than a try: for a key that is not at hand, or while the issuer is away. */
const KEYS_COOLDOWN_MS = 30_000;
/** Milliseconds that keys serve on while their issuer does not answer: four hours, in which somebody can mend it. */
const KEYS_OUTAGE_MS = 14_400_000;

/** All that jose throws about the token itself has a code of its own; what comes from fetching keys has not. */
export function isFaultOfToken(error: unknown): boolean {
  return (
    error instanceof errors.JOSEError &&
    error.code !== errors.JOSEError.code &&
    !(error instanceof errors.JWKSTimeout) &&
    !(error instanceof errors.JWKSInvalid)
  );
}

/** Told, each half minute at most, that the issuer did not answer and its last keys go on. */
export type OnAway = (error: unknown) => void;

/**
 * The keys that an issuer publishes at a URL. While it does not answer, those that were fetched last go on: Orders must not stop because
 * the issuer does. Rejects with `isFaultOfToken` where no key fits, and otherwise where no keys can be had.
 */
export function createIssuerKeys(url: URL, onAway: OnAway): JWTVerifyGetKey {
  const cache: JWKSCacheInput = {};
  const remote = createRemoteJWKSet(url, {
    timeoutDuration: KEYS_MS_MAX,
    cacheMaxAge: KEYS_KEPT_MS,
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
        if (isFaultOfToken(error)) throw error;
        if (hasCooledDown) {
          failure = { error, atMs: now };
          if (last() !== undefined) onAway(error);
        }
      }
    }
    const error = failure?.error;
    const keys = last();
    if (keys === undefined) throw error;
    // A key that is not among the last ones may be a new one: that is not the token's fault.
    return await createLocalJWKSet(keys)(header, token).catch(() => {
      throw error;
    });
  };
}
