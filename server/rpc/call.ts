import { randomUUID } from "node:crypto";
import type { IncomingHttpHeaders } from "node:http";
import type { DescMethod, Message } from "@bufbuild/protobuf";
import { Code, ConnectError, type ContextValues, createContextKey } from "@connectrpc/connect";
import type { Principal } from "../access/principal.ts";
import { type Caller, clientBehind } from "../http/caller.ts";
import { NO_HEADERS } from "../http/headers.ts";
import { TrustedProxies } from "../http/trusted-proxies.ts";
import { deadlineExceeded } from "./deadline.ts";
import { toConnectError } from "./errors.ts";

/** Accepted form of a client's `x-request-id`. Any other value is replaced, so that it cannot forge log lines. */
const REQUEST_ID = /^[\w.:/+=-]{1,128}$/;

/** A cross-cutting concern of every call, on both paths. It sees the head of the request before the body is read. */
export interface CallMiddleware {
  /** Rejects the call by throwing. Only the last middleware may return a promise. */
  enter?(call: Call): void | Promise<void>;
  /** Wraps the method, once its request is read. */
  readonly run?: <T>(call: Call, method: () => T) => T;
  /** Called once for each call whose `enter` succeeded; `undefined` is OK. */
  leave?(call: Call, code: Code | undefined): void;
}

export interface CallHead {
  readonly method: DescMethod;
  readonly headers: IncomingHttpHeaders;
  readonly caller: Caller;
}

/** One call, from the head of its request to the end of its response. */
export class Call implements CallHead {
  readonly method: DescMethod;
  readonly caller: Caller;
  /** Milliseconds of `performance.now()`. */
  readonly startedAt = performance.now();
  /** Milliseconds of `performance.now()`; `undefined` where the caller set no deadline. */
  deadline: number | undefined;
  /** The authenticated caller; set where the method requires one. */
  principal: Principal | undefined;
  /** The request of a unary call, once it is read. */
  request: Message | undefined;
  /** Set by a batch method: the number of its requests, and of those that failed. */
  batch: { readonly requests: number; readonly failed: number } | undefined;
  /** The response of a unary call that succeeded. */
  response: Message | undefined;
  /** What the method threw. */
  failure: unknown;
  /**
   * The code to record if the Connect path ends the call now; `undefined` is OK. INVALID_ARGUMENT until the request
   * reaches the method, since only reading the request can fail before.
   */
  outcome: Code | undefined = Code.InvalidArgument;
  /** Set by the tracing middleware. */
  traceId: string | undefined;
  #headers: IncomingHttpHeaders;
  readonly #middleware: readonly CallMiddleware[];
  #enteredCount = 0;
  #admission: void | Promise<void> | undefined;
  #reachedMiddleware = false;
  #isAdmitted = false;
  #rejection: ConnectError | undefined;
  #isOver = false;
  #requestId: string | undefined;

  constructor(head: CallHead, middleware: readonly CallMiddleware[]) {
    this.method = head.method;
    this.#headers = head.headers;
    this.caller = head.caller;
    this.#middleware = middleware;
  }

  /** Of the request. After `releaseRequest` only the request ID. */
  get headers(): IncomingHttpHeaders {
    return this.#headers;
  }

  /** Drops the request and its headers, for a call that stays open for long after its start. */
  releaseRequest(): void {
    this.request = undefined;
    const { "x-request-id": requestId } = this.#headers;
    this.#headers = requestId === undefined ? NO_HEADERS : { "x-request-id": requestId };
  }

  /** The caller's `x-request-id`, or a new UUID. */
  get requestId(): string {
    if (this.#requestId === undefined) {
      const given = this.headers["x-request-id"];
      this.#requestId = typeof given === "string" && REQUEST_ID.test(given) ? given : randomUUID();
    }
    return this.#requestId;
  }

  /**
   * Enters every middleware. Throws, or rejects with, a `ConnectError` where one rejects the call, or where the deadline
   * has passed. Idempotent: later calls have the result of the first.
   */
  admit(): void | Promise<void> {
    if (this.#rejection !== undefined) {
      throw this.#rejection;
    }
    if (!this.#reachedMiddleware) {
      this.#reachedMiddleware = true;
      this.#admission = this.#enterAll();
    }
    return this.#admission;
  }

  /** False for a request that was refused before the middleware, as for its content type. It does not count as a call. */
  get reachedMiddleware(): boolean {
    return this.#reachedMiddleware;
  }

  /** Whether every middleware has admitted the call. */
  get isAdmitted(): boolean {
    return this.#isAdmitted;
  }

  /**
   * Runs the method inside every middleware. Throws `Canceled` where the call has ended, as it may while it is
   * authenticated or its request is read: the middleware has left by then and would not record what the method does.
   * Throws `DeadlineExceeded` where the deadline has passed, even if no timer has fired yet: nothing may be changed then.
   */
  run<T>(method: () => T): T {
    if (this.#isOver) {
      throw new ConnectError("The call has ended", Code.Canceled);
    }
    if (this.#isExpired) {
      throw deadlineExceeded();
    }
    let inner = method;
    for (const { run } of this.#middleware) {
      if (run !== undefined) {
        const next = inner;
        inner = () => run(this, next);
      }
    }
    return inner();
  }

  /** Leaves every middleware. Only the first call has an effect; `undefined` is OK. */
  end(code: Code | undefined): void {
    if (this.#isOver) {
      return;
    }
    this.#isOver = true;
    const finalCode = this.#rejection?.code ?? code;
    for (let index = this.#enteredCount - 1; index >= 0; index -= 1) {
      this.#middleware[index]?.leave?.(this, finalCode);
    }
  }

  #enterAll(): void | Promise<void> {
    try {
      for (const middleware of this.#middleware) {
        const pending = middleware.enter?.(this);
        this.#enteredCount += 1;
        if (pending !== undefined) {
          return pending.then(() => this.#admitted()).catch((error: unknown) => this.#reject(error));
        }
      }
      this.#admitted();
    } catch (error) {
      this.#reject(error);
    }
  }

  #admitted(): void {
    this.#isAdmitted = true;
    if (this.#isExpired) {
      throw deadlineExceeded();
    }
  }

  get #isExpired(): boolean {
    return this.deadline !== undefined && performance.now() >= this.deadline;
  }

  #reject(reason: unknown): never {
    this.#rejection = toConnectError(reason);
    // Ended here and not with the response: a client that does not read its error must not hold a place in a limit.
    this.end(this.#rejection.code);
    throw this.#rejection;
  }
}

/** Creates the call of each request, on both paths. */
export class CallPipeline {
  readonly #middleware: readonly CallMiddleware[];
  readonly #proxies: TrustedProxies;

  /** `middleware` is outermost first. */
  constructor(middleware: readonly CallMiddleware[], proxies = new TrustedProxies([])) {
    this.#middleware = middleware;
    this.#proxies = proxies;
  }

  /** The caller of this method must end the call, whatever its outcome. */
  start(head: CallHead): Call {
    const caller = clientBehind(head.caller, head.headers, this.#proxies);
    return new Call(caller === head.caller ? head : { ...head, caller }, this.#middleware);
  }
}

/** Set for every call, on both paths. */
export const callKey = createContextKey<Call | undefined>(undefined, { description: "call" });

/** The call that these context values belong to. Throws `TypeError` where there is none. */
export function callIn(values: ContextValues): Call {
  const call = values.get(callKey);
  if (call === undefined) {
    throw new TypeError("These context values belong to no call");
  }
  return call;
}

/** `inventory.v1.StockService/GetStock` */
export function procedureOf(method: DescMethod): string {
  return `${method.parent.typeName}/${method.name}`;
}
