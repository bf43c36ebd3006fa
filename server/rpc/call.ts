import { randomUUID } from "node:crypto";
import type { IncomingHttpHeaders } from "node:http";
import type { DescMethod, Message } from "@bufbuild/protobuf";
import { Code, ConnectError, type ContextValues, createContextKey } from "@connectrpc/connect";
import type { Principal } from "../access/principal.ts";
import { type Caller, clientBehind } from "../http/caller.ts";
import { TrustedProxies } from "../http/trusted-proxies.ts";
import { toConnectError } from "./errors.ts";

/** What a caller's own request ID may look like; any other is not taken over into the logs. */
const REQUEST_ID = /^[\w.:/+=-]{1,128}$/;

/**
 * Something that every call passes, in order, before its request is read, on whichever way it came.
 * Each concern that is not the method's own stands in one of these.
 */
export interface CallMiddleware {
  /** Refuses by throwing. Only the last stage may answer with a promise. */
  enter?(call: Call): void | Promise<void>;
  /** Runs the method itself, once its request is read. */
  readonly run?: <T>(call: Call, method: () => T) => T;
  /** Told once for each call that this stage has let in. */
  leave?(call: Call, code: Code | undefined): void;
}

/** What the head of a request tells. */
export interface CallHead {
  readonly method: DescMethod;
  readonly headers: IncomingHttpHeaders;
  readonly caller: Caller;
}

/** One call, from the head of its request to the end of its answer. */
export class Call implements CallHead {
  readonly method: DescMethod;
  readonly headers: IncomingHttpHeaders;
  readonly caller: Caller;
  /** Milliseconds of `performance.now()`. */
  readonly beganAt = performance.now();
  /** Who calls, where the method asks for it. */
  principal: Principal | undefined;
  /** The request of a unary call, once it is read. */
  request: Message | undefined;
  /**
   * How it ends if it ends now, where Connect answers it; `undefined` is OK. Until the request reaches the
   * method, whatever goes wrong is wrong with the request.
   */
  outcome: Code | undefined = Code.InvalidArgument;
  /** Set by whoever traces. */
  traceId: string | undefined;
  readonly #stages: readonly CallMiddleware[];
  #entered = 0;
  #admission: void | Promise<void> | undefined;
  #isAsked = false;
  #isAdmitted = false;
  #refusal: ConnectError | undefined;
  #isOver = false;
  #requestId: string | undefined;

  constructor(head: CallHead, stages: readonly CallMiddleware[]) {
    this.method = head.method;
    this.headers = head.headers;
    this.caller = head.caller;
    this.#stages = stages;
  }

  /** The caller's `x-request-id`, or a new one. */
  get requestId(): string {
    if (this.#requestId === undefined) {
      const given = this.headers["x-request-id"];
      this.#requestId = typeof given === "string" && REQUEST_ID.test(given) ? given : randomUUID();
    }
    return this.#requestId;
  }

  /** Passes every stage. Throws, or rejects with, a `ConnectError` where one refuses; asked again, it answers the same. */
  admit(): void | Promise<void> {
    if (this.#refusal !== undefined) {
      throw this.#refusal;
    }
    if (!this.#isAsked) {
      this.#isAsked = true;
      this.#admission = this.#pass();
    }
    return this.#admission;
  }

  /** Whether it came as far as the stages. What is refused before, such as an unknown content type, is no call. */
  get wasAdmitted(): boolean {
    return this.#isAsked;
  }

  /** Whether every stage has let it in. */
  get isAdmitted(): boolean {
    return this.#isAdmitted;
  }

  /**
   * Runs the method as the stages will have it. Throws `Canceled` where the call is over, as it may be before its caller is known or
   * its request read: the stages have been told how it ended, and would never hear of what it does then.
   */
  run<T>(method: () => T): T {
    if (this.#isOver) {
      throw new ConnectError("The call is over", Code.Canceled);
    }
    let inner = method;
    for (const { run } of this.#stages) {
      if (run !== undefined) {
        const next = inner;
        inner = () => run(this, next);
      }
    }
    return inner();
  }

  /** Tells every stage that the call is over. The first call counts; `undefined` is OK. */
  end(code: Code | undefined): void {
    if (this.#isOver) {
      return;
    }
    this.#isOver = true;
    const told = this.#refusal?.code ?? code;
    for (let index = this.#entered - 1; index >= 0; index -= 1) {
      this.#stages[index]?.leave?.(this, told);
    }
  }

  #pass(): void | Promise<void> {
    try {
      for (const stage of this.#stages) {
        const pending = stage.enter?.(this);
        this.#entered += 1;
        if (pending !== undefined) {
          return pending.then(
            () => {
              this.#isAdmitted = true;
            },
            (error: unknown) => this.#refuse(error),
          );
        }
      }
      this.#isAdmitted = true;
    } catch (error) {
      this.#refuse(error);
    }
  }

  #refuse(reason: unknown): never {
    this.#refusal = toConnectError(reason);
    // It is over for the stages here: whoever does not read his refusal takes nobody's place by that.
    this.end(this.#refusal.code);
    throw this.#refusal;
  }
}

/** Where calls begin. */
export class CallPipeline {
  readonly #stages: readonly CallMiddleware[];
  readonly #proxies: TrustedProxies;

  constructor(stages: readonly CallMiddleware[], proxies = new TrustedProxies([])) {
    this.#stages = stages;
    this.#proxies = proxies;
  }

  /** The caller of this ends the call, whatever becomes of it. */
  begin(head: CallHead): Call {
    const caller = clientBehind(head.caller, head.headers, this.#proxies);
    return new Call(caller === head.caller ? head : { ...head, caller }, this.#stages);
  }
}

/** Set for every call, on both ways. */
export const callKey = createContextKey<Call | undefined>(undefined, { description: "call" });

/** The call that these values belong to. */
export function callIn(values: ContextValues): Call {
  const call = values.get(callKey);
  if (call === undefined) {
    throw new TypeError("These context values are of no call");
  }
  return call;
}

/** `inventory.v1.StockService/GetStock` */
export function procedureOf(method: DescMethod): string {
  return `${method.parent.typeName}/${method.name}`;
}
