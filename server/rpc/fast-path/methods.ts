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
import { ResponseEncoder } from "./response-encoder.ts";

/** What an implementation may use of a call, on whichever way the call came. */
export type CallContext = Pick<
  HandlerContext,
  "signal" | "timeoutMs" | "requestHeader" | "responseHeader" | "responseTrailer" | "values"
>;

/** How messages are read and written as JSON. Unknown fields are ignored unless it says otherwise. */
export type JsonOptions = Partial<JsonReadOptions & JsonWriteOptions>;

/** A value, or one that is still to come. What is at hand is spared the wait. */
export type Awaitable<T> = T | Promise<T>;

/** A unary method as the short way runs it. */
export interface FastPathMethod {
  readonly desc: DescMethod;
  readonly input: DescMessage;
  readonly output: DescMessage;
  readonly json: JsonOptions;
  readonly encoder: ResponseEncoder;
  invoke(request: Message, context: CallContext): Awaitable<Message>;
}

/** A service with what implements it, as both ways take it. */
export interface ImplementedService {
  readonly desc: DescService;
  /** By local name of the method. */
  readonly implementation: object;
}

/** The unary methods of the services, by path. */
export function fastPathMethods(
  services: readonly ImplementedService[],
  jsonOptions: JsonOptions = {},
): ReadonlyMap<string, FastPathMethod> {
  const json = { ignoreUnknownFields: true, ...jsonOptions };
  const encoder = new ResponseEncoder(json);
  const methods = new Map<string, FastPathMethod>();
  for (const { desc, implementation } of services) {
    for (const method of desc.methods) {
      const run: unknown = Reflect.get(implementation, method.localName);
      if (method.methodKind === "unary" && typeof run === "function") {
        const { input, output } = method;
        methods.set(`/${desc.typeName}/${method.name}`, {
          desc: method,
          input,
          output,
          json,
          encoder,
          invoke: (request, context) => {
            const answer = run.call(implementation, request, context);
            return answer instanceof Promise
              ? answer.then((settled) => create(output, settled))
              : create(output, answer);
          },
        });
      }
    }
  }
  return methods;
}
