import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { Code, ConnectError, type Transport, type UnaryResponse } from "@connectrpc/connect";
import { findTrailerError } from "@connectrpc/connect/protocol-grpc";
import { type ChannelOptions, Client, credentials, Metadata, type ServiceError } from "@grpc/grpc-js";

/** Short, so that a restarted server is found soon. The default of grpc-js is up to two minutes. */
const RECONNECT_MS_MIN = 20;
const RECONNECT_MS_MAX = 200;

const CHANNEL: ChannelOptions = {
  // Otherwise all transports to one server share a connection.
  "grpc.use_local_subchannel_pool": 1,
  "grpc.initial_reconnect_backoff_ms": RECONNECT_MS_MIN,
  "grpc.max_reconnect_backoff_ms": RECONNECT_MS_MAX,
  "grpc.enable_retries": 0,
};

/** Native gRPC by grpc-js on a separate connection, for Connect's clients of the generated code. */
export interface GrpcJsTransport extends Transport, Disposable {}

/**
 * Unary calls only. It needs a quarter of the CPU time of Connect's own transport for Node, which makes tests under load
 * shorter. Errors are those of Connect, with their details.
 */
export function grpcJsTransport(address: string): GrpcJsTransport {
  const client = new Client(address, credentials.createInsecure(), CHANNEL);
  return {
    unary: (method, signal, timeoutMs, header, input) =>
      new Promise((resolve, reject) => {
        const metadata = new Metadata();
        new Headers(header).forEach((value, name) => {
          metadata.set(name, value);
        });
        const call = client.makeUnaryRequest(
          `/${method.parent.typeName}/${method.name}`,
          (request: typeof input) => Buffer.from(toBinary(method.input, create(method.input, request))),
          (bytes) => fromBinary(method.output, bytes),
          input,
          metadata,
          timeoutMs === undefined ? {} : { deadline: Date.now() + timeoutMs },
          (error, message) => {
            signal?.removeEventListener("abort", cancel);
            if (error !== null || message === undefined) return reject(connectErrorOf(error));
            const response: UnaryResponse<typeof method.input, typeof method.output> = {
              stream: false,
              service: method.parent,
              method,
              header: new Headers(),
              trailer: new Headers(),
              message,
            };
            resolve(response);
          },
        );
        const cancel = (): void => call.cancel();
        signal?.addEventListener("abort", cancel);
      }),
    stream: () => Promise.reject(new ConnectError("only unary calls are made here", Code.Unimplemented)),
    [Symbol.dispose]: () => client.close(),
  };
}

/** The error in the trailers, with details, if the server sent any; otherwise the error that grpc-js reports. */
function connectErrorOf(error: ServiceError | null): ConnectError {
  if (error === null) return new ConnectError("there was neither an answer nor an error", Code.Internal);
  const [status] = error.metadata.get("grpc-status-details-bin");
  const code: Code = error.code as number;
  if (!Buffer.isBuffer(status)) return new ConnectError(error.details, code);
  const trailer = new Headers({
    "grpc-status": String(error.code),
    "grpc-status-details-bin": status.toString("base64"),
  });
  return findTrailerError(trailer) ?? new ConnectError(error.details, code);
}
