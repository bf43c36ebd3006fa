import type { DescMethod } from "@bufbuild/protobuf";
import { Code, ConnectError, type ConnectRouter } from "@connectrpc/connect";
import type { JsonOptions } from "../fast-path/methods.ts";
import { jsonDecoder, jsonRulesOf } from "./json.ts";

/** A router that gives each method its own reader of JSON requests. Connect has no other place to check them in. */
export function withJsonReaders(router: ConnectRouter, json: JsonOptions): ConnectRouter {
  const strict: ConnectRouter = {
    handlers: router.handlers,
    service(service, implementation, options) {
      for (const method of service.methods) {
        const run: unknown = Reflect.get(implementation, method.localName);
        const bound = typeof run === "function" ? run.bind(implementation) : unimplemented(method);
        strict.rpc(method, bound as never, options);
      }
      return strict;
    },
    rpc(method, implementation, options) {
      const textDecoder = jsonDecoder(method.input, jsonRulesOf(method.parent, json));
      const jsonOptions = { ...json, ignoreUnknownFields: true, textDecoder };
      router.rpc(method, implementation, { ...options, jsonOptions });
      return strict;
    },
  };
  return strict;
}

function unimplemented({ parent, name }: DescMethod): () => never {
  return () => {
    throw new ConnectError(`${parent.typeName}.${name} is not implemented`, Code.Unimplemented);
  };
}
