import { request as requestHttp1 } from "node:http";
import { type ClientSessionOptions, connect } from "node:http2";

/** A request of a client that may violate the protocols. */
export interface RawRequest {
  readonly method: string;
  /** Sent unchanged: `//x`, `http://host/x`, `/x/../y`. */
  readonly path: string;
  /** A list is sent as several header lines with the same name. */
  readonly headers: Readonly<Record<string, string | string[]>>;
  readonly body: string | Buffer;
  readonly trailers?: Readonly<Record<string, string>>;
}

export interface RawAnswer {
  /** 0 if the connection was closed without a response. */
  readonly status: number;
  /** Headers, and trailers whose name no header has. */
  readonly headers: Readonly<Record<string, unknown>>;
  readonly body: Buffer;
}

export type Send = (port: number, request: RawRequest) => Promise<RawAnswer>;

const CUT: RawAnswer = { status: 0, headers: {}, body: Buffer.alloc(0) };

const overHttp1: Send = (port, { method, path, headers, body, trailers }) =>
  new Promise((resolve) => {
    const all = trailers ? { ...headers, "transfer-encoding": "chunked" } : headers;
    const request = requestHttp1({ host: "127.0.0.1", port, method, path, headers: all, agent: false });
    request.on("response", (response) => {
      const chunks: Buffer[] = [];
      response.on("data", (chunk: Buffer) => chunks.push(chunk));
      response.on("error", () => {});
      response.on("close", () =>
        resolve({
          status: response.statusCode ?? 0,
          headers: { ...response.trailers, ...response.headers },
          body: Buffer.concat(chunks),
        }),
      );
    });
    request.on("upgrade", ({ statusCode = 0, headers: upgraded }, socket) => {
      socket.destroy();
      resolve({ ...CUT, status: statusCode, headers: upgraded });
    });
    request.on("error", () => resolve(CUT));
    if (trailers !== undefined) {
      request.addTrailers(trailers);
    }
    request.end(body);
  });

/** Allows single-value headers to be sent twice, which Node's types do not cover. */
const SINGLE_VALUES_TWICE: ClientSessionOptions & { readonly strictSingleValueFields: boolean } = {
  strictSingleValueFields: false,
};

const overHttp2: Send = (port, { method, path, headers, body, trailers }) =>
  new Promise((resolve) => {
    const session = connect(`http://127.0.0.1:${port}`, SINGLE_VALUES_TWICE);
    session.on("error", () => resolve(CUT));
    const stream = session.request(
      { ...headers, ":method": method, ":path": path },
      { endStream: false, waitForTrailers: trailers !== undefined },
    );
    let status = 0;
    let received: Record<string, unknown> = {};
    const chunks: Buffer[] = [];
    stream.on("wantTrailers", () => stream.sendTrailers(trailers ?? {}));
    stream.on("response", (head) => {
      status = Number(head[":status"]);
      received = head;
    });
    stream.on("trailers", (tail) => {
      received = { ...tail, ...received };
    });
    stream.on("data", (chunk: Buffer) => chunks.push(chunk));
    stream.on("error", () => {});
    stream.on("close", () => {
      session.destroy();
      resolve({ status, headers: received, body: Buffer.concat(chunks) });
    });
    stream.end(body);
  });

/** By version of HTTP. */
export const SEND = { "1.1": overHttp1, "2": overHttp2 } as const;
