import { readFileSync } from "node:fs";
import { usageError } from "./errors.ts";

/** The options that every command has. */
export interface ConnectionOptions {
  readonly url?: string;
  readonly token?: string;
  readonly tokenFile?: string;
  readonly caFile?: string;
  readonly certFile?: string;
  readonly keyFile?: string;
  readonly timeout?: string;
  readonly json?: boolean;
}

/** How to reach and authenticate to the server. */
export interface Settings {
  /** Without a path and without a slash at its end. */
  readonly url: string;
  readonly token: string | undefined;
  readonly tls: { readonly ca?: Buffer; readonly cert?: Buffer; readonly key?: Buffer };
  /** Longest time of one call. */
  readonly timeoutMs: number;
}

export const URL_DEFAULT = "http://localhost:8080";
const TIMEOUT_SECONDS_DEFAULT = "10";
/** The longest deadline that the server accepts. */
const TIMEOUT_SECONDS_MAX = 86_400;

/** The variables that the command line reads, each with its flag. A flag takes precedence. */
export const VARIABLES = {
  url: "INVENTORY_URL",
  token: "INVENTORY_TOKEN",
  tokenFile: "INVENTORY_TOKEN_FILE",
  caFile: "INVENTORY_CA_FILE",
  certFile: "INVENTORY_CERT_FILE",
  keyFile: "INVENTORY_KEY_FILE",
  timeout: "INVENTORY_TIMEOUT",
} as const;

/** Reads flags and environment. Throws a usage error that names the flag or the variable. */
export function readSettings(options: ConnectionOptions): Settings {
  const of = (name: keyof typeof VARIABLES): Setting => settingOf(name, options);
  const [cert, key] = [readOptionalFile(of("certFile")), readOptionalFile(of("keyFile"))];
  if ((cert === undefined) !== (key === undefined)) {
    throw usageError("A client certificate needs both --cert-file and --key-file");
  }
  const ca = readOptionalFile(of("caFile"));
  return {
    url: readUrl(of("url")),
    token: readToken(of("token"), of("tokenFile")),
    tls: { ...(ca && { ca }), ...(cert && { cert }), ...(key && { key }) },
    timeoutMs: readTimeout(of("timeout")),
  };
}

interface Setting {
  /** The flag or the variable, for messages. */
  readonly source: string;
  readonly value: string | undefined;
}

function settingOf(name: keyof typeof VARIABLES, options: ConnectionOptions): Setting {
  const value = options[name];
  if (value !== undefined) {
    return { source: `--${name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`, value };
  }
  // An empty variable counts as unset, as in the service.
  return { source: VARIABLES[name], value: process.env[VARIABLES[name]] || undefined };
}

function readUrl({ source, value = URL_DEFAULT }: Setting): string {
  const url = URL.parse(value);
  const isValid =
    url !== null && ["http:", "https:"].includes(url.protocol) && url.pathname === "/" && url.search === "";
  if (!isValid) {
    throw usageError(
      `${source} is ${JSON.stringify(value)}; give an address such as ${URL_DEFAULT} or https://shop.example`,
    );
  }
  return url.origin;
}

function readToken(token: Setting, file: Setting): string | undefined {
  // A flag takes precedence over a variable of the other kind.
  const useFile = file.value !== undefined && (token.value === undefined || !token.source.startsWith("--"));
  const { source, value } = useFile ? { ...file, value: readOptionalFile(file)?.toString().trim() } : token;
  if (value !== undefined && !/^[\x21-\x7e]+$/.test(value)) {
    throw usageError(`${source} has no token: a token has no spaces, line breaks or non-ASCII characters`);
  }
  return value;
}

function readOptionalFile({ source, value }: Setting): Buffer | undefined {
  if (value === undefined) return undefined;
  try {
    return readFileSync(value);
  } catch (error) {
    throw usageError(`${source} cannot be read: ${(error as Error).message}`);
  }
}

function readTimeout({ source, value = TIMEOUT_SECONDS_DEFAULT }: Setting): number {
  const seconds = Number(value.replace(/s$/, ""));
  if (!(seconds > 0 && seconds <= TIMEOUT_SECONDS_MAX)) {
    throw usageError(
      `${source} is ${JSON.stringify(value)}; give seconds above 0 and at most ${TIMEOUT_SECONDS_MAX}`,
    );
  }
  return seconds * 1_000;
}
