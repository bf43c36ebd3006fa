import type { X509Certificate } from "node:crypto";
import { TLSSocket } from "node:tls";
import type { Principal, Role } from "./principal.ts";

/** A client by the name in its certificate: the subject's common name, or a DNS or URI subject alternative name. */
export interface CertificateEntry {
  readonly name: string;
  readonly role: Role;
}

/** Why a client certificate is refused. Each is a label of a metric. */
export const CERTIFICATE_REFUSALS = ["expired", "not_yet_valid", "untrusted", "not_listed"] as const;
export type CertificateRefusalReason = (typeof CERTIFICATE_REFUSALS)[number];

/** A certificate that does not authenticate its client. */
export interface CertificateRefusal {
  readonly reason: CertificateRefusalReason;
  /** The end of a sentence that starts with the certificate: `it expired at 2026-11-27T00:00:00.000Z`. */
  readonly explanation: string;
  /** OpenSSL's verification error, such as `CERT_HAS_EXPIRED`. Absent for `not_listed`. */
  readonly verificationError: string | undefined;
  readonly certificate: CertificateSummary;
}

/** What identifies a certificate in a log. */
export interface CertificateSummary {
  readonly subject: string;
  readonly alternativeNames: string | undefined;
  readonly issuer: string;
  /** SHA-256 of the certificate in hex with colons. */
  readonly fingerprint: string;
  readonly validFrom: string;
  readonly validTo: string;
}

/** The client of a connection by its certificate, or why the certificate is refused. */
export type CertificateVerdict =
  | { readonly principal: Principal; readonly refusal?: undefined }
  | { readonly principal?: undefined; readonly refusal: CertificateRefusal };

/** Called once for each connection with a certificate, when a call first depends on it. */
export interface CertificateObserver {
  onAccepted(principal: Principal, certificate: CertificateSummary): void;
  onRefused(refusal: CertificateRefusal): void;
}

/**
 * Judges the certificate of a connection, which is a TLS socket or an HTTP/2 session over one. `undefined` if the client sent
 * none.
 */
export type CertificateCheck = (connection: object) => CertificateVerdict | undefined;

/**
 * Authenticates clients by certificates that the listener's CA (TLS_CLIENT_CA) has signed, once per connection: a certificate that
 * expires later is refused on the next connection.
 */
export function createCertificateCheck(
  entries: readonly CertificateEntry[],
  observer: CertificateObserver,
): CertificateCheck {
  const byConnection = new WeakMap<object, { readonly verdict: CertificateVerdict | undefined }>();
  return (connection) => {
    let cached = byConnection.get(connection);
    if (cached === undefined) {
      cached = { verdict: judge(connection, entries, observer) };
      byConnection.set(connection, cached);
    }
    return cached.verdict;
  };
}

function judge(
  connection: object,
  entries: readonly CertificateEntry[],
  observer: CertificateObserver,
): CertificateVerdict | undefined {
  const socket: unknown = "socket" in connection ? connection.socket : connection;
  // An HTTP/2 session returns a proxy of its socket, for which `instanceof` holds as well.
  const x509 = socket instanceof TLSSocket ? socket.getPeerX509Certificate() : undefined;
  if (!(socket instanceof TLSSocket) || x509 === undefined) {
    return undefined;
  }
  const certificate = summarize(x509);
  const refusal = socket.authorized
    ? undefined
    : refuseUnverified(String(socket.authorizationError), x509, certificate);
  const principal = refusal === undefined ? principalOf(namesOf(x509), entries) : undefined;
  if (principal !== undefined) {
    observer.onAccepted(principal, certificate);
    return { principal };
  }
  const refused = refusal ?? refuseUnlisted(x509, certificate);
  observer.onRefused(refused);
  return { refusal: refused };
}

function refuseUnverified(
  verificationError: string,
  { validFromDate, validToDate }: X509Certificate,
  certificate: CertificateSummary,
): CertificateRefusal {
  const refuse = (reason: CertificateRefusalReason, explanation: string): CertificateRefusal => ({
    reason,
    explanation,
    verificationError,
    certificate,
  });
  const now = new Date();
  if (verificationError === "CERT_HAS_EXPIRED") {
    const isLeaf = validToDate < now;
    return refuse(
      "expired",
      isLeaf ? `it expired at ${certificate.validTo}` : "a certificate in its chain has expired",
    );
  }
  if (verificationError === "CERT_NOT_YET_VALID") {
    const isLeaf = validFromDate > now;
    return refuse(
      "not_yet_valid",
      isLeaf ? `it is valid from ${certificate.validFrom}` : "a certificate in its chain is not valid yet",
    );
  }
  return refuse("untrusted", `the CA that this server trusts did not sign it (${verificationError})`);
}

function refuseUnlisted(x509: X509Certificate, certificate: CertificateSummary): CertificateRefusal {
  const names = [...namesOf(x509)].map((name) => JSON.stringify(name)).join(", ");
  return {
    reason: "not_listed",
    explanation:
      names === ""
        ? "it has no name"
        : `this server has no role for its name${names.includes(", ") ? "s" : ""} ${names}`,
    verificationError: undefined,
    certificate,
  };
}

function principalOf(
  names: ReadonlySet<string>,
  entries: readonly CertificateEntry[],
): Principal | undefined {
  const matching = entries.filter(({ name }) => names.has(name));
  const [first] = matching;
  return (
    first && { name: first.name, roles: new Set(matching.map(({ role }) => role)), provenBy: "certificate" }
  );
}

function namesOf(x509: X509Certificate): ReadonlySet<string> {
  const alternatives = (x509.subjectAltName ?? "").split(", ").flatMap((entry) => {
    const [, name] = /^(?:DNS|URI):([^"]+)$/.exec(entry) ?? [];
    return name === undefined ? [] : [name];
  });
  const commonName: unknown = x509.toLegacyObject().subject?.CN;
  return new Set(typeof commonName === "string" ? [commonName, ...alternatives] : alternatives);
}

function summarize(x509: X509Certificate): CertificateSummary {
  return {
    subject: oneLine(x509.subject),
    alternativeNames: x509.subjectAltName,
    issuer: oneLine(x509.issuer),
    fingerprint: x509.fingerprint256,
    validFrom: x509.validFromDate.toISOString(),
    validTo: x509.validToDate.toISOString(),
  };
}

/** Node writes a distinguished name with one attribute per line. `undefined` at run time where it is empty. */
function oneLine(name: string | undefined): string {
  return (name ?? "").split("\n").join(", ");
}
