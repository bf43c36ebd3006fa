import type { IncomingMessage } from "node:http";
import type { Http2ServerRequest } from "node:http2";
import { isIPv6 } from "node:net";
import { TLSSocket } from "node:tls";
import { quote, type Refusal } from "../refusal.ts";
import { unsupportedVersion } from "./parse-errors.ts";

// What RFC 9112 and RFC 9110 require of an origin server beyond what Node's parser checks. Requests that pass are in one form: the
// target in origin-form, and the authority of the target in `host`.

/** `uri-host [ ":" port ]` of RFC 9110, section 7.2. The host is not empty: section 4.2.1 makes such a URI invalid. */
const AUTHORITY = /^(?:\[([0-9a-fA-F:.]+)\]|[\w.~!$&'()*+,;=%-]+)(?::(\d*))?$/;
const PORT_MAX = 65_535;
const HOST = "host";
const ABSOLUTE_FORM = /^([a-z][a-z0-9+.-]*):\/\/([^/?#]*)(.*)$/i;

interface RequestChecks {
  /** Whether a gateway at this address is trusted to have terminated TLS. */
  readonly isTrustedGateway: (address: string) => boolean;
}

/** Rewrites the request to origin-form, or returns why it is refused. */
export function checkHttp1Request(request: IncomingMessage, checks: RequestChecks): Refusal | undefined {
  return (
    checkVersion(request) ??
    checkTransferCoding(request) ??
    checkHost(request) ??
    checkTarget(request, checks)
  );
}

export function checkHttp2Request(request: Http2ServerRequest): Refusal | undefined {
  const { authority } = request;
  return isAuthority(authority) ? undefined : refuseAuthority(":authority", authority);
}

/** Node parses any version of one digit. RFC 9110, section 15.6.6. */
function checkVersion({ httpVersion, httpVersionMajor }: IncomingMessage): Refusal | undefined {
  return httpVersionMajor === 1 ? undefined : unsupportedVersion(httpVersion);
}

/** RFC 9112, sections 6.1 and 6.3. Node's parser refuses `Content-Length` beside it, and chunked applied twice. */
function checkTransferCoding({ headers, httpVersion }: IncomingMessage): Refusal | undefined {
  const coding = headers["transfer-encoding"];
  if (coding === undefined) {
    return undefined;
  }
  if (httpVersion === "1.0") {
    return { status: 400, message: "Transfer-Encoding is not part of HTTP/1.0; send Content-Length" };
  }
  const codings = coding.split(",").map((each) => each.trim().toLowerCase());
  if (codings.at(-1) !== "chunked") {
    return {
      status: 400,
      message: `Transfer-Encoding is ${quote(coding)}; its last coding must be chunked, or the body has no known length`,
    };
  }
  return codings.length === 1
    ? undefined
    : {
        status: 501,
        message: `Transfer-Encoding is ${quote(coding)}; the only supported transfer coding is chunked`,
      };
}

/** RFC 9112, section 3.2: exactly one, and valid. An HTTP/1.0 request may omit it; the local address is used instead. */
function checkHost({ headers, httpVersion, rawHeaders, socket }: IncomingMessage): Refusal | undefined {
  const count = countHosts(rawHeaders);
  if (count > 1) {
    return { status: 400, message: `The request has ${count} Host fields; exactly one is allowed` };
  }
  if (count === 0) {
    if (httpVersion !== "1.0") {
      return { status: 400, message: "The request has no Host field; HTTP/1.1 requires one" };
    }
    const { localAddress = "localhost", localPort } = socket;
    headers.host = `${isIPv6(localAddress) ? `[${localAddress}]` : localAddress}:${localPort}`;
    return undefined;
  }
  const host = headers.host ?? "";
  return isAuthority(host) ? undefined : refuseAuthority("Host", host);
}

/** RFC 9112, section 3.2: origin-form, absolute-form, or asterisk-form with OPTIONS. CONNECT is handled elsewhere. */
function checkTarget(request: IncomingMessage, { isTrustedGateway }: RequestChecks): Refusal | undefined {
  const { url: target = "", method } = request;
  if (target.startsWith("/") || (target === "*" && method === "OPTIONS")) {
    return undefined;
  }
  const [, scheme, authority = "", rest = ""] = ABSOLUTE_FORM.exec(target) ?? [];
  if (scheme === undefined) {
    return {
      status: 400,
      message: `The request target is ${quote(target)}; it must be a path that starts with /, or an absolute URI`,
    };
  }
  const isHttps = scheme.toLowerCase() === "https";
  if (!isHttps && scheme.toLowerCase() !== "http") {
    return {
      status: 400,
      message: `The request target has the scheme ${quote(scheme)}; it must be http or https`,
    };
  }
  if (!isAuthority(authority)) {
    return refuseAuthority("The authority of the request target", authority);
  }
  const { socket } = request;
  if (isHttps && !(socket instanceof TLSSocket) && !isTrustedGateway(socket.remoteAddress ?? "")) {
    // RFC 9110, section 7.4.
    return { status: 421, message: "The request target is an https URI; this connection is not secured" };
  }
  // The authority of the target takes precedence over Host (RFC 9112, section 3.2.2).
  request.headers.host = authority;
  request.url = originForm(rest, method);
  return undefined;
}

function originForm(rest: string, method: string | undefined): string {
  if (rest === "" && method === "OPTIONS") {
    return "*";
  }
  return rest.startsWith("/") ? rest : `/${rest}`;
}

/** `rawHeaders` has names and values in turn. */
function countHosts(rawHeaders: readonly string[]): number {
  let count = 0;
  for (let index = 0; index < rawHeaders.length; index += 2) {
    const name = rawHeaders[index];
    if (name?.length === HOST.length && name.toLowerCase() === HOST) count += 1;
  }
  return count;
}

function isAuthority(text: string): boolean {
  // Nearly all requests name the same one.
  if (text === lastValidAuthority) {
    return true;
  }
  const isValid = parsesAsAuthority(text);
  if (isValid) lastValidAuthority = text;
  return isValid;
}

let lastValidAuthority: string | undefined;

function parsesAsAuthority(text: string): boolean {
  const match = AUTHORITY.exec(text);
  if (match === null) {
    return false;
  }
  const [, ipv6, port = ""] = match;
  return (ipv6 === undefined || isIPv6(ipv6)) && Number(port) <= PORT_MAX && URL.canParse(`http://${text}`);
}

function refuseAuthority(what: string, value: string): Refusal {
  return {
    status: 400,
    message: `${what} is ${quote(value)}; it must be a host name or an address, with an optional port from 0 to ${PORT_MAX}`,
  };
}
