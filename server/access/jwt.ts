import { createLocalJWKSet, errors, type JSONWebKeySet, type JWTVerifyGetKey, jwtVerify } from "jose";
import { createIssuerKeys, isInvalidToken, type OnIssuerUnavailable } from "./issuer-keys.ts";
import { isRole, type Principal } from "./principal.ts";
import { sha256Of } from "./tokens.ts";

export interface JwtSettings {
  /** The URL at which the issuer publishes its keys, or the keys. */
  readonly keys: URL | JSONWebKeySet;
  readonly issuer: string;
  readonly audience: string;
  /** The claim with the caller's roles: a string, a list, or a space-separated string. */
  readonly roleClaim: string;
}

/** The issuer's keys are unavailable, so the token cannot be verified. */
export class KeysUnavailable extends Error {
  override readonly name = "KeysUnavailable";
}

/** Signature algorithms without a shared secret. */
const ALGORITHMS = [
  ...["ES256", "ES384", "ES512", "PS256", "PS384", "PS512", "RS256", "RS384", "RS512"],
  // The same algorithm under its old and its new name (RFC 9864).
  ...["EdDSA", "Ed25519"],
];
/** Allowed difference between the issuer's clock and this one, s. */
const CLOCK_TOLERANCE_SECONDS = 5;
/** How long a verified token is accepted from the cache, ms. This extends the validity of a revoked key by the same time. */
const CACHE_TTL_MS = 60_000;
/** Cached tokens; the oldest is evicted first. */
const CACHE_SIZE_MAX = 10_000;

/**
 * Verifies JWTs (RFC 7519): signature, issuer, audience, subject, times. Accepted tokens are cached by
 * their hashes, because clients send the same token with thousands of calls, and a signature check
 * costs more than the call. A token is never accepted from the cache after its expiry.
 */
export class JwtCheck {
  readonly #settings: JwtSettings;
  readonly #keySet: JWTVerifyGetKey;
  readonly #cache = new Map<string, { readonly principal: Principal; readonly untilMs: number }>();

  constructor(settings: JwtSettings, onUnavailable: OnIssuerUnavailable) {
    const { keys } = settings;
    this.#settings = settings;
    this.#keySet = keys instanceof URL ? createIssuerKeys(keys, onUnavailable) : createLocalJWKSet(keys);
  }

  /** The principal of a token that is in the cache. */
  cached(token: string): Principal | undefined {
    const found = this.#cache.get(keyOf(token));
    return found !== undefined && found.untilMs > Date.now() ? found.principal : undefined;
  }

  /** The principal of a token. Rejects with `KeysUnavailable`, or with the reason why the token is invalid. */
  async verify(token: string): Promise<Principal> {
    const { issuer, audience, roleClaim } = this.#settings;
    const { payload } = await jwtVerify(token, this.#keySet, {
      issuer,
      audience,
      algorithms: ALGORITHMS,
      clockTolerance: CLOCK_TOLERANCE_SECONDS,
      requiredClaims: ["exp", "sub"],
    }).catch((error: unknown) => {
      throw isInvalidToken(error)
        ? error
        : new KeysUnavailable("The keys of the issuer are unavailable", { cause: error });
    });
    const name: unknown = payload.sub;
    if (typeof name !== "string" || name === "") {
      throw new errors.JWTInvalid('"sub" claim must be a name');
    }
    const principal: Principal = {
      name,
      roles: rolesOf(payload[roleClaim]),
      provenBy: "jwt",
    };
    this.#addToCache(token, principal, Number(payload.exp) * 1_000);
    return principal;
  }

  #addToCache(token: string, principal: Principal, expiresAtMs: number): void {
    const key = keyOf(token);
    this.#cache.delete(key);
    this.#cache.set(key, { principal, untilMs: Math.min(expiresAtMs, Date.now() + CACHE_TTL_MS) });
    if (this.#cache.size > CACHE_SIZE_MAX) {
      const [oldest = ""] = this.#cache.keys();
      this.#cache.delete(oldest);
    }
  }
}

function rolesOf(claim: unknown): Principal["roles"] {
  const words: readonly unknown[] =
    typeof claim === "string" ? claim.split(" ") : Array.isArray(claim) ? claim : [];
  return new Set(words.filter(isRole));
}

function keyOf(token: string): string {
  return sha256Of(token).toString("base64");
}
