import { type CallOptions, type Client, Metadata } from "@grpc/grpc-js";
import type { MethodDefinition, PackageDefinition } from "@grpc/proto-loader";

/** A method as a caller in another language has it, of proto files loaded by `loadSync`: nothing of `gen/` is in it. */
export type Method = MethodDefinition<object, object>;

/** The method at `package.Service/Method`. Throws where the contract has none. */
export function methodOf(contract: PackageDefinition, path: string): Method {
  const [service = "", name = ""] = path.split("/");
  const definition = contract[service];
  const method = definition && !("format" in definition) ? definition[name] : undefined;
  if (method === undefined) throw new Error(`The contract has no method ${path}`);
  return method;
}

export interface UnaryOptions extends CallOptions {
  readonly metadata?: Metadata;
}

/** Makes one unary call; rejects with a `ServiceError`. */
export function callUnary(
  client: Client,
  { path, requestSerialize, responseDeserialize }: Method,
  request: object,
  { metadata = new Metadata(), ...options }: UnaryOptions = {},
): Promise<Record<string, unknown>> {
  return new Promise((resolve, reject) => {
    client.makeUnaryRequest(
      path,
      requestSerialize,
      responseDeserialize,
      request,
      metadata,
      options,
      (error, reply) => (error ? reject(error) : resolve({ ...reply })),
    );
  });
}
