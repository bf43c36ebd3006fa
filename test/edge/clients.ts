import { request } from "node:https";
import { setDefaultCACertificates } from "node:tls";
import {
  type DescMessage,
  type DescMethodServerStreaming,
  type DescMethodUnary,
  fromBinary,
  type MessageInitShape,
  type MessageShape,
  create as message,
  toBinary,
} from "@bufbuild/protobuf";
import { type ClientReadableStream, credentials, Client as GrpcClient } from "@grpc/grpc-js";
import type { Edge } from "./edges.ts";

/** Makes this process's fetch trust the self-signed certificate of an edge. */
export function trust(edge: Edge): void {
  setDefaultCACertificates([edge.certificate.toString()]);
}

/** @grpc/grpc-js, through TLS. */
export class NativeClient implements Disposable {
  readonly #client: GrpcClient;

  constructor(edge: Edge) {
    this.#client = new GrpcClient(`localhost:${edge.port}`, credentials.createSsl(edge.certificate));
  }

  /** Rejects with a grpc-js `ServiceError`. */
  call<I extends DescMessage, O extends DescMessage>(
    method: DescMethodUnary<I, O>,
    input: MessageInitShape<I>,
  ): Promise<MessageShape<O>> {
    const { path, write, read } = codecOf(method);
    return new Promise((resolve, reject) => {
      this.#client.makeUnaryRequest(path, write, read, message(method.input, input), (error, answer) =>
        answer === undefined ? reject(error) : resolve(answer),
      );
    });
  }

  open<I extends DescMessage, O extends DescMessage>(
    method: DescMethodServerStreaming<I, O>,
    input: MessageInitShape<I>,
  ): ClientReadableStream<MessageShape<O>> {
    const { path, write, read } = codecOf(method);
    return this.#client.makeServerStreamRequest(path, write, read, message(method.input, input));
  }

  [Symbol.dispose](): void {
    this.#client.close();
  }
}

function codecOf<I extends DescMessage, O extends DescMessage>(method: {
  readonly parent: { readonly typeName: string };
  readonly name: string;
  readonly input: I;
  readonly output: O;
}): {
  path: string;
  write: (value: MessageShape<I>) => Buffer;
  read: (bytes: Buffer) => MessageShape<O>;
} {
  return {
    path: `/${method.parent.typeName}/${method.name}`,
    write: (value) => Buffer.from(toBinary(method.input, value)),
    read: (bytes) => fromBinary(method.output, bytes),
  };
}

export interface RawAnswer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  readonly body: string;
}

/** An HTTP/1.1 request from an address of this machine, whose path is sent unchanged. */
export function ask(
  edge: Edge,
  path: string,
  options: {
    readonly method?: string;
    readonly headers?: Readonly<Record<string, string>>;
    readonly body?: string;
    readonly from?: string;
  } = {},
): Promise<RawAnswer> {
  return new Promise((resolve, reject) => {
    const sent = request(
      {
        host: "127.0.0.1",
        port: edge.port,
        servername: "localhost",
        ca: edge.certificate,
        agent: false,
        path,
        method: options.method ?? (options.body === undefined ? "GET" : "POST"),
        headers: { host: "localhost", ...options.headers },
        ...(options.from !== undefined && { localAddress: options.from }),
      },
      (answer) => {
        let body = "";
        answer.setEncoding("utf8");
        answer.on("data", (text: string) => {
          body += text;
        });
        answer.on("error", reject);
        answer.on("end", () => resolve({ status: answer.statusCode ?? 0, headers: answer.headers, body }));
      },
    );
    sent.on("error", reject);
    sent.end(options.body);
  });
}
