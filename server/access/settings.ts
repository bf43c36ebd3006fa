import { readFileSync } from "node:fs";
import type { JSONWebKeySet } from "jose";
import { z } from "zod";
import type { CertificateEntry } from "./certificates.ts";
import type { JwtSettings } from "./jwt.ts";
import { ROLES } from "./principal.ts";
import type { TokenEntry } from "./tokens.ts";

/** How callers may prove who they are. */
export interface AccessSettings {
  readonly tokens: readonly TokenEntry[];
  readonly jwt: JwtSettings | undefined;
  readonly certificates: readonly CertificateEntry[];
}

/** The variables, as they stand in the environment. */
export interface AccessVariables {
  readonly AUTH_TOKENS?: string | undefined;
  readonly AUTH_TOKENS_FILE?: string | undefined;
  readonly AUTH_JWKS?: string | undefined;
  readonly AUTH_JWT_ISSUER?: string | undefined;
  readonly AUTH_JWT_AUDIENCE?: string | undefined;
  readonly AUTH_JWT_ROLE_CLAIM: string;
  readonly TLS_CLIENT_CA?: string | undefined;
  readonly TLS_CLIENT_ROLES?: string | undefined;
}

const ROLE_NAMES = ROLES.join(", ");
const Role = z.enum(ROLES);
const Name = z.string().regex(/^[\w.@:/+-]{1,128}$/);
const Sha256 = z
  .string()
  .regex(/^[0-9a-f]{64}$/i)
  .transform((hex) => Buffer.from(hex, "hex"));
/** With `d` in it a key could sign tokens, and is nothing to be handed about. */
const PublicKey = z.record(z.string(), z.unknown()).refine((key) => !("d" in key));
const KeySet = z.object({ keys: z.array(PublicKey).min(1) });

/**
 * Reads them, if there are any; adds to `faults` what is wrong, without the entries themselves, which somebody
 * may have confused with tokens.
 */
export function readAccess(variables: AccessVariables, faults: string[]): AccessSettings | undefined {
  const { AUTH_TOKENS, AUTH_TOKENS_FILE, AUTH_JWKS, AUTH_JWT_ISSUER, AUTH_JWT_AUDIENCE } = variables;
  const { TLS_CLIENT_CA, TLS_CLIENT_ROLES } = variables;
  const ofTokens = [AUTH_TOKENS, AUTH_TOKENS_FILE, AUTH_JWKS, AUTH_JWT_ISSUER, AUTH_JWT_AUDIENCE];
  if ([...ofTokens, TLS_CLIENT_CA, TLS_CLIENT_ROLES].every((value) => value === undefined)) {
    return undefined;
  }
  return {
    tokens: readTokens(variables, faults),
    jwt: readJwt(variables, faults),
    certificates: readCertificates(variables, faults),
  };
}

function readTokens({ AUTH_TOKENS, AUTH_TOKENS_FILE }: AccessVariables, faults: string[]): TokenEntry[] {
  const fromFile = AUTH_TOKENS_FILE && readText("AUTH_TOKENS_FILE", AUTH_TOKENS_FILE, faults);
  const entries = [
    ...tokensOf("AUTH_TOKENS", AUTH_TOKENS, faults),
    ...tokensOf("AUTH_TOKENS_FILE", fromFile, faults),
  ];
  const nameOf = new Map<string, string>();
  for (const { name, sha256 } of entries) {
    const hash = sha256.toString("hex");
    const other = nameOf.get(hash);
    if (other !== undefined) {
      faults.push(`AUTH_TOKENS: ${other} and ${name} have the same token; a token has one name and one role`);
    }
    nameOf.set(hash, name);
  }
  return entries;
}

function tokensOf(variable: string, text: string | undefined, faults: string[]): TokenEntry[] {
  const entries = entriesOf(text ?? "");
  if (text !== undefined && entries.length === 0) {
    faults.push(`${variable} has no entry; it needs name:role:sha256 at least once`);
  }
  return entries.flatMap((entry, index) => {
    const [name, role, sha256, ...rest] = entry.split(":");
    const parsed = z.object({ name: Name, role: Role, sha256: Sha256 }).safeParse({ name, role, sha256 });
    if (parsed.success && rest.length === 0) {
      return [parsed.data];
    }
    faults.push(
      `${variable}: entry ${index + 1} must be name:role:sha256, with a role of ${ROLE_NAMES} and the 64 hex digits of the token's SHA-256`,
    );
    return [];
  });
}

function readJwt(variables: AccessVariables, faults: string[]): JwtSettings | undefined {
  const { AUTH_JWKS, AUTH_JWT_ISSUER: issuer, AUTH_JWT_AUDIENCE: audience, AUTH_JWT_ROLE_CLAIM } = variables;
  if (AUTH_JWKS === undefined && issuer === undefined && audience === undefined) {
    return undefined;
  }
  if (AUTH_JWKS === undefined || issuer === undefined || audience === undefined) {
    faults.push("AUTH_JWKS, AUTH_JWT_ISSUER and AUTH_JWT_AUDIENCE must be set together");
    return undefined;
  }
  const keys = /^https?:\/\//.test(AUTH_JWKS) ? URL.parse(AUTH_JWKS) : readKeySet(AUTH_JWKS, faults);
  if (keys === null) {
    faults.push(`AUTH_JWKS is ${JSON.stringify(AUTH_JWKS)}; it must be a URL, or the path of a file`);
  } else if (keys instanceof URL && keys.username + keys.password !== "") {
    faults.push("AUTH_JWKS has a user or a password in it; keys are fetched without");
  }
  return keys ? { keys, issuer, audience, roleClaim: AUTH_JWT_ROLE_CLAIM } : undefined;
}

function readKeySet(path: string, faults: string[]): JSONWebKeySet | undefined {
  const text = readText("AUTH_JWKS", path, faults);
  try {
    return text === undefined ? undefined : KeySet.parse(JSON.parse(text));
  } catch {
    faults.push(
      `AUTH_JWKS is ${JSON.stringify(path)}; the file must be a JSON Web Key Set of public keys: {"keys": […]}`,
    );
    return undefined;
  }
}

function readCertificates(
  { TLS_CLIENT_CA, TLS_CLIENT_ROLES }: AccessVariables,
  faults: string[],
): CertificateEntry[] {
  if ((TLS_CLIENT_CA === undefined) !== (TLS_CLIENT_ROLES === undefined)) {
    faults.push("TLS_CLIENT_CA and TLS_CLIENT_ROLES must be set together");
  }
  const entries = entriesOf(TLS_CLIENT_ROLES ?? "");
  if (TLS_CLIENT_ROLES !== undefined && entries.length === 0) {
    faults.push("TLS_CLIENT_ROLES has no entry; it needs name:role at least once");
  }
  return entries.flatMap((entry) => {
    // A name may be a URI, which has colons of its own.
    const colon = entry.lastIndexOf(":");
    const parsed = z
      .object({ name: Name, role: Role })
      .safeParse({ name: entry.slice(0, Math.max(colon, 0)), role: entry.slice(colon + 1) });
    if (parsed.success) {
      return [parsed.data];
    }
    faults.push(
      `TLS_CLIENT_ROLES has ${JSON.stringify(entry)}; an entry must be name:role, a role being one of ${ROLE_NAMES}`,
    );
    return [];
  });
}

/** Entries with commas, spaces or line ends between them; a line that begins with # is a remark. */
function entriesOf(text: string): string[] {
  return text
    .replaceAll(/^\s*#.*$/gm, "")
    .split(/[\s,]+/)
    .filter((entry) => entry !== "");
}

function readText(variable: string, path: string, faults: string[]): string | undefined {
  try {
    return readFileSync(path, "utf8");
  } catch (error) {
    faults.push(
      `${variable} is ${JSON.stringify(path)}; it cannot be read: ${error instanceof Error ? error.message : error}`,
    );
    return undefined;
  }
}
