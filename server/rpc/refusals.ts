import type { DescMethod } from "@bufbuild/protobuf";
import { MethodOptions_IdempotencyLevel } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError } from "@connectrpc/connect";
import type { UniversalServerResponse } from "@connectrpc/connect/protocol";
import {
  createEndStreamSerialization,
  endStreamFlag,
  errorToJsonBytes,
} from "@connectrpc/connect/protocol-connect";
import { setTrailerStatus } from "@connectrpc/connect/protocol-grpc";
import { type HttpRequest, pathOf, type RequestHandler, setHead } from "../http/message.ts";
import { quote, type Refusal, type Refuse } from "../http/refusal.ts";
import { isGet } from "./cacheable-get.ts";
import { procedureOf } from "./call.ts";
import { envelope, grpcWebTrailers } from "./fast-path/framing.ts";
import { withGrpcMessage } from "./grpc-message.ts";

// Responses to requests that never become a call, in the protocol and codec of their caller. The header fields of the request are
// normalized: see `http/media-type.ts`.

type Protocol = "grpc" | "grpc-web" | "grpc-web-text" | "connect-unary" | "connect-stream";

const PROTOCOLS: readonly (readonly [contentType: RegExp, protocol: Protocol])[] = [
  [/^application\/grpc(\+.+)?$/, "grpc"],
  [/^application\/grpc-web(\+.+)?$/, "grpc-web"],
  [/^application\/grpc-web-text(\+.+)?$/, "grpc-web-text"],
  [/^application\/connect\+.+$/, "connect-stream"],
  [/^application\/(json|proto)(;.*)?$/, "connect-unary"],
];
/** The query of a Connect GET. */
const GET_QUERY = /[?&](connect|encoding)=/;
/** `/package.Service/Method`. A JSON request to any other path is not an RPC. */
const METHOD_PATH = /^\/[\w.]+\/\w+$/;

/** 404, 405 and 415 have the codes that Connect clients derive from the status, as its conformance suite requires. */
const CODE_BY_STATUS: ReadonlyMap<number, Code> = new Map([
  [404, Code.Unimplemented],
  [405, Code.Unknown],
  [408, Code.DeadlineExceeded],
  [412, Code.FailedPrecondition],
  [413, Code.ResourceExhausted],
  [415, Code.Unknown],
  [431, Code.ResourceExhausted],
  [501, Code.Unimplemented],
  [505, Code.Unimplemented],
]);

const END_STREAM = createEndStreamSerialization(undefined);

/** Refuses a request in the protocol of its caller; as text where it is in none. */
export const refuseInProtocol: Refuse = (request, response, refusal) => {
  const { status, headers, body, trailers } = encode(request, protocolOf(request), refusal);
  setHead(response, status, { ...headers, ...trailers });
  // Without a body gRPC's trailers go out in the only HEADERS frame (Trailers-Only).
  if (body === undefined) {
    response.end();
  } else {
    response.end(body);
  }
};

/** Responds to requests for methods that do not exist: UNIMPLEMENTED, which gRPC clients do not read from a 404. */
export const refuseUnknownMethod: RequestHandler = (request, response, path) => {
  const protocol = protocolOf(request);
  if (protocol === undefined || (protocol === "connect-unary" && !METHOD_PATH.test(path))) {
    return false;
  }
  refuseInProtocol(request, response, {
    status: protocol === "connect-unary" ? 404 : 200,
    message: `There is no method ${path}`,
  });
  return true;
};

/** Connect refuses HTTP methods, content types and HTTP versions with a bare status. This adds `Allow` and the reason. */
export function explainRefusal(
  method: DescMethod,
  request: HttpRequest,
  result: UniversalServerResponse,
): UniversalServerResponse {
  if (result.body !== undefined) {
    return result;
  }
  const refusal = refusalOf(method, request, result.status);
  if (refusal === undefined) {
    return result;
  }
  const { status, headers, body, trailers } = encode(request, protocolOf(request), refusal);
  const header = new Headers(result.header);
  for (const [name, value] of Object.entries(headers)) {
    header.set(name, value);
  }
  return body === undefined
    ? { status, header, trailer: new Headers(trailers) }
    : { status, header, body: once(body) };
}

function refusalOf(method: DescMethod, request: HttpRequest, status: number): Refusal | undefined {
  const { method: httpMethod = "", headers } = request;
  const type = headers["content-type"];
  const procedure = procedureOf(method);
  switch (status) {
    case 405: {
      const allowed = allowedMethods(method);
      return {
        status,
        message: `The method ${quote(httpMethod)} is not allowed for ${procedure}; allowed: ${allowed}`,
        headers: { allow: allowed },
      };
    }
    case 415: {
      if (isGet(method, httpMethod)) {
        return {
          status,
          message: `A ${httpMethod} of ${procedure} needs encoding=json or encoding=proto in its query`,
        };
      }
      const supported = contentTypes(method);
      const received =
        type === undefined ? "The request has no content type" : `The content type is ${quote(type)}`;
      const isGrpc = protocolOf(request)?.startsWith("grpc") === true;
      return {
        // gRPC clients read a status from trailers only of a response with 200.
        status: isGrpc ? 200 : status,
        message: `${received}; ${procedure} supports ${supported.join(", ")}`,
        headers: { "accept-post": supported.join(", ") },
      };
    }
    case 412:
      return {
        status,
        message: `If-Match is ${quote(String(headers["if-match"]))}; the current response has another ETag`,
      };
    case 505:
      return { status, message: `${procedure} streams in both directions, which needs HTTP/2` };
    default:
      return undefined;
  }
}

/** HTTP methods, as `Allow` lists them. */
function allowedMethods(method: DescMethod): string {
  const isReadable =
    method.methodKind === "unary" && method.idempotency === MethodOptions_IdempotencyLevel.NO_SIDE_EFFECTS;
  return [...(isReadable ? ["GET"] : []), ...(isGet(method, "HEAD") ? ["HEAD"] : []), "POST"].join(", ");
}

function contentTypes(method: DescMethod): string[] {
  const connect = method.methodKind === "unary" ? "application/" : "application/connect+";
  return [
    `${connect}json`,
    `${connect}proto`,
    ...["application/grpc", "application/grpc-web", "application/grpc-web-text"].flatMap((type) => [
      `${type}+proto`,
      `${type}+json`,
    ]),
  ];
}

function protocolOf({ headers, url = "", method }: HttpRequest): Protocol | undefined {
  if ((method === "GET" || method === "HEAD") && GET_QUERY.test(url.slice(pathOf(url).length))) {
    return "connect-unary";
  }
  const type = headers["content-type"] ?? "";
  return PROTOCOLS.find(([pattern]) => pattern.test(type))?.[1];
}

interface EncodedRefusal {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: Uint8Array | undefined;
  /** gRPC alone has them, and it has no body. */
  readonly trailers: Readonly<Record<string, string>>;
}

function encode(
  request: HttpRequest,
  protocol: Protocol | undefined,
  { status, message, headers = {} }: Refusal,
): EncodedRefusal {
  const code = status === 200 ? Code.Unimplemented : (CODE_BY_STATUS.get(status) ?? Code.InvalidArgument);
  const error = new ConnectError(message, code);
  const type = request.headers["content-type"] ?? "";
  const encoded = (contentType: string, body: Uint8Array): EncodedRefusal => ({
    status,
    headers: { ...headers, "content-type": contentType, "cache-control": "no-store" },
    body,
    trailers: {},
  });
  if (protocol === undefined) {
    return encoded("text/plain; charset=utf-8", Buffer.from(`${message}\n`));
  }
  if (protocol === "connect-stream" && status === 200) {
    return encoded(type, envelope(endStreamFlag, END_STREAM.serialize({ metadata: new Headers(), error })));
  }
  if (protocol === "connect-unary" || protocol === "connect-stream") {
    return encoded("application/json", errorToJsonBytes(error, undefined));
  }
  const trailers = setTrailerStatus(new Headers(), error);
  if (protocol === "grpc") {
    const grpcTrailers = Object.fromEntries(withGrpcMessage(trailers));
    return { ...encoded(type, Buffer.alloc(0)), body: undefined, trailers: grpcTrailers };
  }
  const frame = grpcWebTrailers(trailers);
  const web = encoded(type, protocol === "grpc-web" ? frame : Buffer.from(frame.toString("base64")));
  // Clients do not read the body of an HTTP error.
  return status === 200 ? web : { ...web, headers: { ...web.headers, ...Object.fromEntries(trailers) } };
}

async function* once(body: Uint8Array): AsyncGenerator<Uint8Array> {
  yield body;
}
