import { createLocalJWKSet, errors, type JSONWebKeySet, type JWTVerifyGetKey, jwtVerify } from "jose";
import { createIssuerKeys, isFaultOfToken, type OnAway } from "./issuer-keys.ts";
import { isRole, type Principal } from "./principal.ts";
import { sha256Of } from "./tokens.ts";

export interface JwtSettings {
  /** Where the issuer publishes its keys, or the keys themselves. */
  readonly keys: URL | JSONWebKeySet;
  readonly issuer: string;
  readonly audience: string;
  /** The claim with the caller's role: a word, a list, or words with spaces between them. */
  readonly roleClaim: string;
}

/** The issuer's keys cannot be had, so that no token can be judged. */
export class KeysUnavailable extends Error {
  override readonly name = "KeysUnavailable";
}

/** Signatures that need no shared secret. */
const ALGORITHMS = [
  ...["ES256", "ES384", "ES512", "PS256", "PS384", "PS512", "RS256", "RS384", "RS512"],
  // One signature under its old name and its new one (RFC 9864).
  ...["EdDSA", "Ed25519"],
];
/** Seconds by which the issuer's clock may differ from this one. */
const CLOCK_TOLERANCE_SECONDS = 5;
/** Milliseconds that an accepted token is taken without another look; a withdrawn key lives on for as long again. */
const REMEMBERED_MS = 60_000;
/** Tokens remembered; the oldest goes first. */
const REMEMBERED_MAX = 10_000;

/**
 * Checks JWTs (RFC 7519): signature, issuer, audience, subject, times. It remembers the tokens that it
 * accepted, by their hashes: a caller sends the same one with thousands of calls, and a signature
 * costs more than the call does. No token outlives its own end by it.
 */
export class JwtCheck {
  readonly #settings: JwtSettings;
  readonly #keySet: JWTVerifyGetKey;
  readonly #remembered = new Map<string, { readonly principal: Principal; readonly untilMs: number }>();

  constructor(settings: JwtSettings, onAway: OnAway) {
    const { keys } = settings;
    this.#settings = settings;
    this.#keySet = keys instanceof URL ? createIssuerKeys(keys, onAway) : createLocalJWKSet(keys);
  }

  /** Whose token it is, where that was found out a short while ago. */
  recall(token: string): Principal | undefined {
    const found = this.#remembered.get(keyOf(token));
    return found !== undefined && found.untilMs > Date.now() ? found.principal : undefined;
  }

  /** Whose token it is. Rejects with `KeysUnavailable`, or with why the token is not accepted. */
  async verify(token: string): Promise<Principal> {
    const { issuer, audience, roleClaim } = this.#settings;
    const { payload } = await jwtVerify(token, this.#keySet, {
      issuer,
      audience,
      algorithms: ALGORITHMS,
      clockTolerance: CLOCK_TOLERANCE_SECONDS,
      requiredClaims: ["exp", "sub"],
    }).catch((error: unknown) => {
      throw isFaultOfToken(error)
        ? error
        : new KeysUnavailable("The keys of the issuer cannot be had", { cause: error });
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
    this.#remember(token, principal, Number(payload.exp) * 1_000);
    return principal;
  }

  #remember(token: string, principal: Principal, expiresAtMs: number): void {
    const key = keyOf(token);
    this.#remembered.delete(key);
    this.#remembered.set(key, { principal, untilMs: Math.min(expiresAtMs, Date.now() + REMEMBERED_MS) });
    if (this.#remembered.size > REMEMBERED_MAX) {
      const [oldest = ""] = this.#remembered.keys();
      this.#remembered.delete(oldest);
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
