import { Code, ConnectError } from "@connectrpc/connect";
import type {
  UniversalHandlerFn,
  UniversalServerRequest,
  UniversalServerResponse,
} from "@connectrpc/connect/protocol";

// gRPC-Web in base64, as the `grpc-web` client of browsers uses it for streams: XMLHttpRequest gives it no bytes before the end of
// a response (https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-WEB.md).

const TEXT_TYPE = /^application\/grpc-web-text/;
const GROUP = 4;
/** A part of a body, up to its padding: both sides may encode and pad each of their chunks by itself. */
const PADDED_PART = /[^=]+=*|=+/g;
const BASE64 = /^[A-Za-z0-9+/]+={0,2}$/;

export function isGrpcWebText(contentType: string | undefined): boolean {
  return TEXT_TYPE.test(contentType ?? "");
}

/** Runs a call in gRPC-Web, whose request body is decoded already, and encodes the response. */
export async function runAsText(
  handler: UniversalHandlerFn,
  request: UniversalServerRequest,
): Promise<UniversalServerResponse> {
  const header = new Headers(request.header);
  header.set("content-type", (header.get("content-type") ?? "").replace("-text", ""));
  const result = await handler({ ...request, header });
  const type = new Headers(result.header).get("content-type");
  if (type?.startsWith("application/grpc-web") !== true || result.body === undefined) {
    return result;
  }
  const responseHeader = new Headers(result.header);
  responseHeader.set("content-type", type.replace("grpc-web", "grpc-web-text"));
  return { ...result, header: responseHeader, body: encodeBase64(result.body) };
}

/** Decodes a body that may be cut into chunks anywhere. Fails with INVALID_ARGUMENT where it is not padded base64. */
export async function* decodeBase64(body: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  let left = "";
  for await (const chunk of body) {
    const text = left + Buffer.from(chunk).toString("latin1");
    const whole = text.length - (text.length % GROUP);
    left = text.slice(whole);
    for (const [part] of text.slice(0, whole).matchAll(PADDED_PART)) {
      if (part.length % GROUP !== 0 || !BASE64.test(part)) {
        throw new ConnectError("The body is not valid base64", Code.InvalidArgument);
      }
      yield Buffer.from(part, "base64");
    }
  }
  if (left !== "") {
    throw new ConnectError(
      `The body ends with ${left.length} characters of base64 that are not padded to ${GROUP}`,
      Code.InvalidArgument,
    );
  }
}

/** Encodes each chunk by itself, so that a client can decode it when it arrives. */
async function* encodeBase64(body: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  for await (const chunk of body) {
    yield Buffer.from(Buffer.from(chunk).toString("base64"), "latin1");
  }
}
