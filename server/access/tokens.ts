import { createHash, timingSafeEqual } from "node:crypto";
import type { Principal, Role } from "./principal.ts";

/** A bearer token, of which the server stores only the hash. */
export interface TokenEntry {
  readonly name: string;
  readonly role: Role;
  /** SHA-256 of the token, 32 bytes. */
  readonly sha256: Buffer;
}

/** Returns the principal of a token, or `undefined` for an unknown one. */
export type TokenCheck = (token: string) => Principal | undefined;

/** Compares with every entry in constant time, so that timing reveals nothing about a guess. */
export function createTokenCheck(entries: readonly TokenEntry[]): TokenCheck {
  const known = entries.map(({ name, role, sha256 }) => ({
    sha256,
    principal: { name, roles: new Set([role]), provenBy: "token" } satisfies Principal,
  }));
  return (token) => {
    const digest = sha256Of(token);
    let found: Principal | undefined;
    for (const { sha256, principal } of known) {
      if (timingSafeEqual(sha256, digest)) {
        found = principal;
      }
    }
    return found;
  };
}

export function sha256Of(token: string): Buffer {
  return createHash("sha256").update(token).digest();
}
