import {
  create,
  type DescMessage,
  type DescMethod,
  type DescService,
  type JsonReadOptions,
  type JsonWriteOptions,
  type Message,
} from "@bufbuild/protobuf";
import type { HandlerContext } from "@connectrpc/connect";

/** What an implementation may use of a call, on whichever way the call came. */
export type CallContext = Pick<
  HandlerContext,
  "signal" | "timeoutMs" | "requestHeader" | "responseHeader" | "responseTrailer" | "values"
>;

/** How messages are read and written as JSON. Unknown fields are ignored unless it says otherwise. */
export type JsonOptions = Partial<JsonReadOptions & JsonWriteOptions>;

/** A unary method as the short way runs it. */
export interface LaneMethod {
  readonly desc: DescMethod;
  readonly input: DescMessage;
  readonly output: DescMessage;
  readonly json: JsonOptions;
  invoke(request: Message, context: CallContext): Promise<Message>;
}

/** A service with what implements it, as both ways take it. */
export interface ImplementedService {
  readonly desc: DescService;
  /** By local name of the method. */
  readonly implementation: object;
}

/** The unary methods of the services, by path. */
export function laneMethods(
  services: readonly ImplementedService[],
  jsonOptions: JsonOptions = {},
): ReadonlyMap<string, LaneMethod> {
  const json = { ignoreUnknownFields: true, ...jsonOptions };
  const methods = new Map<string, LaneMethod>();
  for (const { desc, implementation } of services) {
    for (const method of desc.methods) {
      const run: unknown = Reflect.get(implementation, method.localName);
      if (method.methodKind === "unary" && typeof run === "function") {
        methods.set(`/${desc.typeName}/${method.name}`, {
          desc: method,
          input: method.input,
          output: method.output,
          json,
          invoke: async (request, context) =>
            create(method.output, await run.call(implementation, request, context)),
        });
      }
    }
  }
  return methods;
}
