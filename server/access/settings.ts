import { readFileSync } from "node:fs";
import type { JSONWebKeySet } from "jose";
import { z } from "zod";
import type { CertificateEntry } from "./certificates.ts";
import type { JwtSettings } from "./jwt.ts";
import { ROLES } from "./principal.ts";
import type { TokenEntry } from "./tokens.ts";

/** How clients may authenticate. */
export interface AccessSettings {
  readonly tokens: readonly TokenEntry[];
  readonly jwt: JwtSettings | undefined;
  readonly certificates: readonly CertificateEntry[];
}

/** The environment variables, unparsed. */
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
/** A key with the member `d` is a private key, which must not be configured here. */
const PublicKey = z.record(z.string(), z.unknown()).refine((key) => !("d" in key));
const KeySet = z.object({ keys: z.array(PublicKey).min(1) });

/**
 * Parses the variables, if any is set. Appends errors to `faults`. They do not quote entries of token lists, because an
 * entry may contain a token by mistake.
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
      faults.push(
        `AUTH_TOKENS: ${other} and ${name} have the same token; each token needs its own name and role`,
      );
    }
    nameOf.set(hash, name);
  }
  return entries;
}

function tokensOf(variable: string, text: string | undefined, faults: string[]): TokenEntry[] {
  const entries = entriesOf(text ?? "");
  if (text !== undefined && entries.length === 0) {
    faults.push(`${variable} has no entries; give at least one name:role:sha256`);
  }
  return entries.flatMap((entry, index) => {
    const [name, role, sha256, ...rest] = entry.split(":");
    const parsed = z.object({ name: Name, role: Role, sha256: Sha256 }).safeParse({ name, role, sha256 });
    if (parsed.success && rest.length === 0) {
      return [parsed.data];
    }
    faults.push(
      `${variable}: entry ${index + 1} must be name:role:sha256; the role is one of ${ROLE_NAMES}, sha256 the token's SHA-256 in 64 hex digits`,
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
    faults.push("AUTH_JWKS contains a user name or a password; credentials are not supported");
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
    faults.push("TLS_CLIENT_ROLES has no entries; give at least one name:role");
  }
  return entries.flatMap((entry) => {
    // A name may be a URI, which contains colons.
    const colon = entry.lastIndexOf(":");
    const parsed = z
      .object({ name: Name, role: Role })
      .safeParse({ name: entry.slice(0, Math.max(colon, 0)), role: entry.slice(colon + 1) });
    if (parsed.success) {
      return [parsed.data];
    }
    faults.push(
      `TLS_CLIENT_ROLES has ${JSON.stringify(entry)}; an entry must be name:role; the role is one of ${ROLE_NAMES}`,
    );
    return [];
  });
}

/** Entries separated by commas, spaces or line breaks. A line that starts with # is a comment. */
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
