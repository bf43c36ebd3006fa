import { TLSSocket } from "node:tls";
import type { Principal, Role } from "./principal.ts";

/** A client by the name in its certificate: the subject's common name, or a DNS or URI subject alternative name. */
export interface CertificateEntry {
  readonly name: string;
  readonly role: Role;
}

/** Returns the principal of a connection, which is a TLS socket or an HTTP/2 session over one. */
export type CertificateCheck = (connection: object) => Principal | undefined;

/** Authenticates clients by certificates that the listener's CA (TLS_CLIENT_CA) has signed, once per connection. */
export function createCertificateCheck(entries: readonly CertificateEntry[]): CertificateCheck {
  const byConnection = new WeakMap<object, { readonly principal: Principal | undefined }>();
  return (connection) => {
    let cached = byConnection.get(connection);
    if (cached === undefined) {
      cached = { principal: principalOf(namesOf(connection), entries) };
      byConnection.set(connection, cached);
    }
    return cached.principal;
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

/** The names of the connection's certificate. Empty unless the certificate was verified. */
function namesOf(connection: object): ReadonlySet<string> {
  const socket: unknown = "socket" in connection ? connection.socket : connection;
  // An HTTP/2 session returns a proxy of its socket, for which `instanceof` holds as well.
  if (!(socket instanceof TLSSocket) || !socket.authorized) {
    return new Set();
  }
  const { subject, subjectaltname = "" } = socket.getPeerCertificate();
  const alternatives = subjectaltname.split(", ").flatMap((entry) => {
    const [, name] = /^(?:DNS|URI):([^"]+)$/.exec(entry) ?? [];
    return name === undefined ? [] : [name];
  });
  const commonName: unknown = subject?.CN;
  return new Set(typeof commonName === "string" ? [commonName, ...alternatives] : alternatives);
}
