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
import { type JsonRules, jsonRulesOf } from "../request/json.ts";
import { ResponseEncoder } from "./response-encoder.ts";

/** The part of Connect's handler context that the fast path provides too. */
export type CallContext = Pick<
  HandlerContext,
  "signal" | "timeoutMs" | "requestHeader" | "responseHeader" | "responseTrailer" | "values"
>;

/** How messages are read and written as JSON. By default, the service decides whether unknown fields are ignored. */
export type JsonOptions = Partial<JsonReadOptions & JsonWriteOptions>;

/** A value that is available now needs no promise, which would cost a turn of the microtask queue. */
export type Awaitable<T> = T | Promise<T>;

/** A unary method on the fast path. */
export interface FastPathMethod {
  readonly desc: DescMethod;
  readonly input: DescMessage;
  readonly output: DescMessage;
  readonly jsonRules: JsonRules;
  readonly encoder: ResponseEncoder;
  invoke(request: Message, context: CallContext): Awaitable<Message>;
}

/** A service and its implementation, for both paths. */
export interface ImplementedService {
  readonly desc: DescService;
  /** Has a function for each local name of a method. */
  readonly implementation: object;
}

/** The unary methods of services, by path. */
export function fastPathMethods(
  services: readonly ImplementedService[],
  jsonOptions: JsonOptions = {},
): ReadonlyMap<string, FastPathMethod> {
  const encoder = new ResponseEncoder(jsonOptions);
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
          jsonRules: jsonRulesOf(desc, jsonOptions),
          encoder,
          invoke: (request, context) => {
            const result = run.call(implementation, request, context);
            return result instanceof Promise
              ? result.then((init) => create(output, init))
              : create(output, result);
          },
        });
      }
    }
  }
  return methods;
}
