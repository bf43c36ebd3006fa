import { quote, type Refusal } from "../refusal.ts";
import type { ListenerLimits } from "./limits.ts";

/** An error of Node's HTTP/1.1 parser. */
export interface ParseError extends NodeJS.ErrnoException {
  /** The parser's own words. */
  readonly reason?: string;
  /** Where it stopped in `rawPacket`, the last bytes that were received. */
  readonly bytesParsed?: number;
  readonly rawPacket?: Buffer;
}

/** The start of a request line: a method and a space. The name in a field line ends in a colon instead. */
const REQUEST_LINE_START = /^[!#$%&'*+.^_`|~\w-]+ /;
const REQUEST_LINE = /^([!#$%&'*+.^_`|~\w-]+) \S+ HTTP\/(\d\.\d)\r$/;

/** The response to bytes that Node could not parse, or that did not arrive in time. */
export function refusalOf(error: ParseError, limits: ListenerLimits): Refusal {
  const { headerBytesMax, headersMs, requestMs } = limits;
  const line = lineOf(error);
  const [, method, version] = REQUEST_LINE.exec(line) ?? [];
  if (error.code === "ERR_HTTP_REQUEST_TIMEOUT") {
    const headMs = Math.min(headersMs, requestMs);
    return {
      status: 408,
      message: `The request did not arrive in time: at most ${headMs} ms for its head, and ${requestMs} ms in all`,
    };
  }
  if (error.code === "HPE_HEADER_OVERFLOW") {
    return REQUEST_LINE_START.test(line)
      ? {
          status: 414,
          message: `The request target is too long; the head of a request has at most ${headerBytesMax} bytes`,
        }
      : headTooLarge(limits);
  }
  if (error.code === "HPE_CHUNK_EXTENSIONS_OVERFLOW") {
    return { status: 413, message: "The chunk extensions are too long" };
  }
  if (error.code === "HPE_INVALID_METHOD" && method !== undefined) {
    return { status: 501, message: `The method ${quote(method)} is not implemented` };
  }
  if (error.code === "HPE_INVALID_VERSION" && version !== undefined) {
    return unsupportedVersion(version);
  }
  return { status: 400, message: `The request could not be parsed: ${error.reason ?? error.message}` };
}

/** The version of a request line is another one than 1.0 and 1.1 (RFC 9110, section 15.6.6). */
export function unsupportedVersion(version: string): Refusal {
  return {
    status: 505,
    message: `HTTP/${version} is not supported in a request line; the server speaks HTTP/1.0, HTTP/1.1 and HTTP/2`,
  };
}

/** RFC 6585, section 5. */
export function headTooLarge({ headerBytesMax, headerPairsMax }: ListenerLimits): Refusal {
  return {
    status: 431,
    message: `The header fields are too many or too long; the head of a request has at most ${headerPairsMax} fields and ${headerBytesMax} bytes`,
  };
}

/** The line in which the parser stopped, as far as it is in the last packet. */
function lineOf({ rawPacket, bytesParsed = 0 }: ParseError): string {
  if (rawPacket === undefined) {
    return "";
  }
  const start = bytesParsed === 0 ? 0 : rawPacket.lastIndexOf("\n", bytesParsed - 1) + 1;
  const end = rawPacket.indexOf("\n", start);
  return rawPacket.toString("latin1", start, end < 0 ? rawPacket.length : end);
}
