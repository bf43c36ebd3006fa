import { X509Certificate } from "node:crypto";
import { readFileSync } from "node:fs";
import { createSecureContext } from "node:tls";

/** The contents of the PEM files. */
export interface TlsSettings {
  readonly cert: Buffer;
  readonly key: Buffer;
  /** The CA that signs client certificates. Absent: clients are not asked for one. */
  readonly clientCa: Buffer | undefined;
}

/**
 * Reads TLS_CERT, TLS_KEY and TLS_CLIENT_CA, and checks that the certificate belongs to the key. Appends
 * errors to `faults`. `undefined` if TLS is not configured.
 */
export function readTls(
  variables: Readonly<Record<string, string | undefined>>,
  faults: string[],
): TlsSettings | undefined {
  const { TLS_CERT: cert, TLS_KEY: key, TLS_CLIENT_CA: clientCa } = variables;
  if (cert === undefined && key === undefined) {
    if (clientCa !== undefined) {
      faults.push("TLS_CLIENT_CA is set; it needs TLS_CERT and TLS_KEY");
    }
    return undefined;
  }
  const faultsBefore = faults.length;
  const tls = {
    cert: readFile("TLS_CERT", cert, faults),
    key: readFile("TLS_KEY", key, faults),
    clientCa: clientCa === undefined ? undefined : readFile("TLS_CLIENT_CA", clientCa, faults),
  };
  if (faults.length === faultsBefore) {
    const pairError = errorOf(() => createSecureContext({ cert: tls.cert, key: tls.key }));
    if (pairError !== undefined) {
      faults.push(
        `TLS_CERT is "${cert}" and TLS_KEY "${key}"; they are not a certificate and its key: ${pairError}`,
      );
    }
    // A TLS server accepts any file as its CA, and then rejects every client.
    const caError = errorOf(() => tls.clientCa && new X509Certificate(tls.clientCa));
    if (caError !== undefined) {
      faults.push(`TLS_CLIENT_CA is "${clientCa}"; it is not a certificate: ${caError}`);
    }
  }
  return tls;
}

function readFile(name: string, path: string | undefined, faults: string[]): Buffer {
  if (path === undefined) {
    faults.push(`${name} is not set; TLS needs both TLS_CERT and TLS_KEY`);
    return Buffer.alloc(0);
  }
  try {
    return readFileSync(path);
  } catch (error) {
    faults.push(`${name} is ${JSON.stringify(path)}; it cannot be read: ${(error as Error).message}`);
    return Buffer.alloc(0);
  }
}

function errorOf(attempt: () => unknown): string | undefined {
  try {
    attempt();
    return undefined;
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
}
