import { TLSSocket } from "node:tls";
import type { Principal, Role } from "./principal.ts";

/** A caller by the name in its certificate: the subject's common name, or a DNS or URI name of the subject. */
export interface CertificateEntry {
  readonly name: string;
  readonly role: Role;
}

/** Finds who is at the other end of a connection: a TLS socket, or an HTTP/2 session over one. */
export type CertificateCheck = (connection: object) => Principal | undefined;

/** Knows callers by certificates that the listener's authority (TLS_CLIENT_CA) has signed; looks once a connection. */
export function createCertificateCheck(entries: readonly CertificateEntry[]): CertificateCheck {
  const byConnection = new WeakMap<object, { readonly principal: Principal | undefined }>();
  return (connection) => {
    let known = byConnection.get(connection);
    if (known === undefined) {
      known = { principal: principalOf(namesOf(connection), entries) };
      byConnection.set(connection, known);
    }
    return known.principal;
  };
}

function principalOf(
  names: ReadonlySet<string>,
  entries: readonly CertificateEntry[],
): Principal | undefined {
  const mine = entries.filter(({ name }) => names.has(name));
  const [first] = mine;
  return first && { name: first.name, roles: new Set(mine.map(({ role }) => role)), provenBy: "certificate" };
}

/** The names of a certificate that was found good. */
function namesOf(connection: object): ReadonlySet<string> {
  const socket: unknown = "socket" in connection ? connection.socket : connection;
  // An HTTP/2 session hands out a stand-in for its socket, which is one by its prototype as well.
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
