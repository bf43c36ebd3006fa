import { type CallOptions, type Client, Metadata } from "@grpc/grpc-js";
import type { MethodDefinition, PackageDefinition } from "@grpc/proto-loader";

/** A method from proto files loaded by `loadSync`, independent of `gen/`, like a client in another language has it. */
export type Method = MethodDefinition<object, object>;

/** The method `package.Service/Method`. Throws if the protos do not have it. */
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
