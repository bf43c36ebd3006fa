import { request as http1Request } from "node:http";
import { type ClientHttp2Session, connect as http2Connect } from "node:http2";
import { gunzipSync } from "node:zlib";
import {
  createRegistry,
  type DescMethod,
  fromBinary,
  fromJson,
  fromJsonString,
  type JsonValue,
  toBinary,
  toJson,
} from "@bufbuild/protobuf";
import { Code } from "@connectrpc/connect";
import { findTrailerError } from "@connectrpc/connect/protocol-grpc";
import { file_google_rpc_error_details } from "../../gen/google/rpc/error_details_pb.ts";
import { file_inventory_v1_reservation } from "../../gen/inventory/v1/reservation_pb.ts";

/** A protocol with a codec, over one version of HTTP. */
export interface Dialect {
  readonly name: string;
  readonly isHttp2: boolean;
  readonly contentType: string;
  readonly isEnveloped: boolean;
  readonly isJson: boolean;
}

export const DIALECTS: readonly Dialect[] = [
  { name: "gRPC", isHttp2: true, contentType: "application/grpc", isEnveloped: true, isJson: false },
  {
    name: "gRPC+proto",
    isHttp2: true,
    contentType: "application/grpc+proto",
    isEnveloped: true,
    isJson: false,
  },
  { name: "gRPC+json", isHttp2: true, contentType: "application/grpc+json", isEnveloped: true, isJson: true },
  ...[false, true].flatMap((isHttp2): Dialect[] => [
    {
      name: "gRPC-Web+json",
      isHttp2,
      contentType: "application/grpc-web+json",
      isEnveloped: true,
      isJson: true,
    },
    {
      name: "gRPC-Web-text",
      isHttp2,
      contentType: "application/grpc-web-text+proto",
      isEnveloped: true,
      isJson: false,
    },
    {
      name: "gRPC-Web",
      isHttp2,
      contentType: "application/grpc-web+proto",
      isEnveloped: true,
      isJson: false,
    },
    { name: "Connect JSON", isHttp2, contentType: "application/json", isEnveloped: false, isJson: true },
    { name: "Connect proto", isHttp2, contentType: "application/proto", isEnveloped: false, isJson: false },
  ]),
];

/** The same for a server-streaming method. */
export const STREAM_DIALECTS: readonly Dialect[] = [
  ...DIALECTS.filter(({ isEnveloped }) => isEnveloped),
  ...[false, true].flatMap((isHttp2) =>
    [true, false].map((isJson): Dialect => {
      const format = isJson ? "json" : "proto";
      return {
        name: `Connect stream ${format}`,
        isHttp2,
        contentType: `application/connect+${format}`,
        isEnveloped: true,
        isJson,
      };
    }),
  ),
];

/** An encoded request. */
export interface WireRequest {
  readonly path: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: Buffer;
}

/** A response; where there is none, `status` is the error. */
export interface WireResponse {
  readonly status: number | string;
  readonly headers: Readonly<Record<string, unknown>>;
  readonly trailers: Readonly<Record<string, unknown>>;
  readonly body: Buffer;
}

/** The flag of the last envelope of a Connect stream. */
const CONNECT_END = 2;

/** Headers that may differ between equal responses. */
const INCIDENTAL = new Set([
  "date",
  "connection",
  "keep-alive",
  "content-length",
  "transfer-encoding",
  "grpc-encoding",
  "grpc-accept-encoding",
  "connect-content-encoding",
  "connect-accept-encoding",
]);

export function wireRequest(dialect: Dialect, method: DescMethod, json: JsonValue): WireRequest {
  const message = fromJson(method.input, json);
  const data = dialect.isJson
    ? Buffer.from(JSON.stringify(toJson(method.input, message)))
    : toBinary(method.input, message);
  return {
    path: `/${method.parent.typeName}/${method.name}`,
    headers: { "content-type": dialect.contentType, te: "trailers" },
    body: dialect.isEnveloped ? envelope(data) : Buffer.from(data),
  };
}

/** Content types whose bodies are base64. `WireRequest` and `WireResponse` have the bytes in it. */
const TEXT_TYPE = /^application\/grpc-web-text/;
/** Not a multiple of the four characters of a group. */
const FIRST_CHARACTERS = 7;

/** The chunks in which a body is sent. Base64 is cut within a group, and padded in the middle. */
function chunksOf({ headers, body }: WireRequest): readonly Buffer[] {
  if (!TEXT_TYPE.test(headers["content-type"] ?? "")) {
    return [body];
  }
  const half = Math.floor(body.length / 2);
  const text = Buffer.from(body.toString("base64", 0, half) + body.toString("base64", half), "latin1");
  return [text.subarray(0, FIRST_CHARACTERS), text.subarray(FIRST_CHARACTERS)];
}

function bodyOf(headers: Record<string, unknown>, received: readonly Buffer[]): Buffer {
  const body = Buffer.concat(received);
  if (!TEXT_TYPE.test(String(headers["content-type"]))) {
    return body;
  }
  const parts = body.toString("latin1").match(/[^=]+=*/g) ?? [];
  return Buffer.concat(parts.map((part) => Buffer.from(part, "base64")));
}

/** Connects to one server over HTTP/1.1 and HTTP/2. */
export class WireClient {
  readonly #port: number;
  #session: ClientHttp2Session | undefined;

  constructor(port: number) {
    this.#port = port;
  }

  /** Resolves with the complete response. `onHead` is called when its headers arrive. */
  call(isHttp2: boolean, request: WireRequest, onHead: () => void = () => {}): Promise<WireResponse> {
    return isHttp2 ? this.#callHttp2(request, onHead) : this.#callHttp1(request, onHead);
  }

  close(): void {
    this.#session?.destroy();
  }

  #callHttp2(wireRequest: WireRequest, onHead: () => void): Promise<WireResponse> {
    const { path, headers } = wireRequest;
    if (this.#session === undefined || this.#session.closed || this.#session.destroyed) {
      this.#session = http2Connect(`http://127.0.0.1:${this.#port}`);
      this.#session.on("error", () => {});
    }
    const stream = this.#session.request({ ":method": "POST", ":path": path, ...headers });
    return new Promise((resolve) => {
      let status: number | string = "no response";
      let responseHeaders: Record<string, unknown> = {};
      let trailers: Record<string, unknown> = {};
      const chunks: Buffer[] = [];
      stream.on("response", (received) => {
        status = received[":status"] ?? "none";
        responseHeaders = received;
        onHead();
      });
      stream.on("trailers", (received) => {
        trailers = received;
      });
      stream.on("data", (chunk: Buffer) => chunks.push(chunk));
      stream.on("error", () => {});
      stream.on("close", () =>
        resolve({
          status,
          headers: plain(responseHeaders),
          trailers: plain(trailers),
          body: bodyOf(responseHeaders, chunks),
        }),
      );
      for (const chunk of chunksOf(wireRequest)) {
        stream.write(chunk);
      }
      stream.end();
    });
  }

  #callHttp1(wireRequest: WireRequest, onHead: () => void): Promise<WireResponse> {
    const { path, headers } = wireRequest;
    const body = chunksOf(wireRequest);
    const length = body.reduce((sum, chunk) => sum + chunk.length, 0);
    return new Promise((resolve) => {
      const onError = (error: NodeJS.ErrnoException): void =>
        resolve({ status: error.code ?? "error", headers: {}, trailers: {}, body: Buffer.alloc(0) });
      const request = http1Request(
        {
          host: "127.0.0.1",
          port: this.#port,
          method: "POST",
          path,
          headers: { ...headers, "content-length": length },
          agent: false,
        },
        (response) => {
          onHead();
          const chunks: Buffer[] = [];
          response.on("data", (chunk: Buffer) => chunks.push(chunk));
          response.on("error", onError);
          response.on("end", () =>
            resolve({
              status: response.statusCode ?? "none",
              headers: plain(response.headers),
              trailers: plain(response.trailers),
              body: bodyOf(response.headers, chunks),
            }),
          );
        },
      );
      request.on("error", onError);
      for (const chunk of body) {
        request.write(chunk);
      }
      request.end();
    });
  }
}

/** The parts of a response that must be equal on both paths, decoded, with times and random IDs replaced. */
export function comparable(dialect: Dialect, method: DescMethod, response: WireResponse): unknown {
  const { status, headers } = response;
  const trailers = Object.entries(response.trailers).map(([name, value]) => clearField(`${name}: ${value}`));
  return JSON.parse(
    JSON.stringify({ status, headers, trailers, body: readable(dialect, method, response) })
      .replace(/\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z/g, "TIME")
      .replace(/[\da-f]{8}(-[\da-f]{4}){3}-[\da-f]{12}/g, "UUID")
      .replace(/"nextPageToken":"[^"]*"/g, '"nextPageToken":"TOKEN"')
      .replace(/"reconnectAfter":"[\d.]+s"/g, '"reconnectAfter":"SOON"'),
  );
}

/** The status of a response, as gRPC spells it: `NOT_FOUND`. `OK` where there is no error. */
export function statusOf(dialect: Dialect, { status, headers, trailers, body }: WireResponse): string {
  const text = body.toString("latin1");
  const ofConnect = /"code":"([a-z_]+)"/.exec(text)?.[1];
  if (ofConnect !== undefined) {
    return ofConnect.toUpperCase();
  }
  if (!String(headers["content-type"]).startsWith("application/grpc")) {
    return status === 200 ? "OK" : `HTTP ${status}`;
  }
  const inBody = /grpc-status: (\d+)/.exec(text)?.[1];
  const code = Number(trailers["grpc-status"] ?? headers["grpc-status"] ?? inBody ?? "none");
  return code === 0
    ? "OK"
    : (Code[code]?.replace(/(?<=.)(?=[A-Z])/g, "_").toUpperCase() ?? `${dialect.name}: none`);
}

function readable(dialect: Dialect, method: DescMethod, response: WireResponse): unknown {
  const { body } = response;
  // A request that is no call is refused with an HTTP status and one error.
  if (!dialect.isEnveloped || response.status !== 200) {
    const isJson = String(response.headers["content-type"]).startsWith("application/json");
    return isJson || response.status !== 200 ? clearDetails(body.toString()) : decoded(method, body, false);
  }
  const parts: unknown[] = [];
  let rest = body;
  while (rest.length >= 5) {
    const flags = rest.readUInt8(0);
    const length = rest.readUInt32BE(1);
    const sent = rest.subarray(5, 5 + length);
    const data = flags % 2 === 1 ? gunzipSync(sent) : sent;
    if (flags >= 128) {
      // The order of gRPC-Web trailers is not significant.
      parts.push(data.toString().split("\r\n").map(clearField).sort());
    } else if (flags >= CONNECT_END) {
      parts.push({ end: clearDetails(data.toString()) });
    } else {
      parts.push(decoded(method, data, dialect.isJson));
    }
    rest = rest.subarray(5 + length);
  }
  return [...parts, rest.toString("hex")];
}

/** What an error may have in its details. */
const DETAILS = createRegistry(file_google_rpc_error_details, file_inventory_v1_reservation);

/** Decodes a trailer, so that times in messages can be replaced. */
function clearField(field: string): string {
  const value = /^grpc-status-details-bin: (.*)$/.exec(field)?.[1];
  if (value === undefined) {
    return field.replace(/%[0-9A-F]{2}/g, (escaped) =>
      String.fromCharCode(Number.parseInt(escaped.slice(1), 16)),
    );
  }
  // The parser requires a status beside the details.
  const error = findTrailerError(new Headers({ "grpc-status": "2", "grpc-status-details-bin": value }));
  const details = error?.details.map((detail) =>
    "type" in detail ? clearDetail(detail.type, detail.value) : detail,
  );
  return JSON.stringify({ code: error?.code, message: error?.rawMessage, details });
}

/** Decodes the binary details in an error of the Connect protocol. */
function clearDetails(text: string): unknown {
  try {
    return JSON.parse(text, (_, value) =>
      typeof value?.type === "string" && typeof value.value === "string"
        ? { ...value, value: clearDetail(value.type, Buffer.from(value.value, "base64")) }
        : value,
    );
  } catch {
    return text;
  }
}

function clearDetail(type: string, value: Uint8Array): JsonValue {
  const schema = DETAILS.getMessage(type);
  return { [type]: schema ? toJson(schema, fromBinary(schema, value)) : Buffer.from(value).toString("hex") };
}

function decoded({ output }: DescMethod, data: Uint8Array, isJson: boolean): unknown {
  try {
    return toJson(
      output,
      isJson ? fromJsonString(output, Buffer.from(data).toString()) : fromBinary(output, data),
    );
  } catch {
    return Buffer.from(data).toString("hex");
  }
}

function plain(headers: Record<string, unknown>): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(headers)
      .filter(([name]) => !name.startsWith(":") && !INCIDENTAL.has(name))
      .sort(([a], [b]) => (a < b ? -1 : 1)),
  );
}

export function envelope(data: Uint8Array, flags = 0): Buffer {
  const prefix = Buffer.alloc(5);
  prefix[0] = flags;
  prefix.writeUInt32BE(data.length, 1);
  return Buffer.concat([prefix, data]);
}
