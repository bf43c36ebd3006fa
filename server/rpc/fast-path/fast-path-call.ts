import type { IncomingHttpHeaders } from "node:http";
import { Code, ConnectError, type ContextValues, createContextValues } from "@connectrpc/connect";
import { type Call, callKey } from "../call.ts";
import { deadlineExceeded } from "../deadline.ts";
import type { CallContext } from "./methods.ts";

/** Response headers and trailers that the method has set. */
export interface Metadata {
  readonly headers: Headers | undefined;
  readonly trailers: Headers | undefined;
}

/** A call on the fast path. Parts of the context that few methods use are created on first access. */
export class FastPathCall implements CallContext {
  readonly call: Call;
  /** Set while the call is being authenticated asynchronously. */
  admission: Promise<void> | undefined;
  #isOver = false;
  #timer: NodeJS.Timeout | undefined;
  #controller: AbortController | undefined;
  #requestHeader: Headers | undefined;
  #responseHeader: Headers | undefined;
  #responseTrailer: Headers | undefined;
  #values: ContextValues | undefined;

  constructor(call: Call) {
    this.call = call;
  }

  /** Throws where a middleware rejects the call. */
  admit(): void {
    const admission = this.call.admit();
    if (admission instanceof Promise) {
      this.admission = admission;
      // The rejection is reported when the admission is awaited. If the call is over by then, nothing awaits it.
      admission.catch(() => {});
    }
  }

  /** Call when the client disconnects, or the response is complete. */
  close(): void {
    if (this.release()) {
      this.#controller?.abort(new ConnectError("The client disconnected", Code.Canceled));
      this.call.end(Code.Canceled);
    }
  }

  /** Ends the fast path's part of the call. Returns false where it has ended before. */
  release(): boolean {
    const wasOver = this.#isOver;
    this.#isOver = true;
    clearTimeout(this.#timer);
    return !wasOver;
  }

  protected get isOver(): boolean {
    return this.#isOver;
  }

  /** Aborts `signal` and calls back after a timeout. */
  setDeadline(timeoutMs: number, onDeadline: () => void): void {
    this.call.deadline = this.call.startedAt + timeoutMs;
    this.#timer = setTimeout(() => {
      this.#controller?.abort(deadlineExceeded());
      onDeadline();
    }, timeoutMs);
  }

  get signal(): AbortSignal {
    this.#controller ??= new AbortController();
    return this.#controller.signal;
  }

  get requestHeader(): Headers {
    this.#requestHeader ??= toHeaders(this.call.headers);
    return this.#requestHeader;
  }

  get responseHeader(): Headers {
    this.#responseHeader ??= new Headers();
    return this.#responseHeader;
  }

  get responseTrailer(): Headers {
    this.#responseTrailer ??= new Headers();
    return this.#responseTrailer;
  }

  get values(): ContextValues {
    this.#values ??= createContextValues().set(callKey, this.call);
    return this.#values;
  }

  timeoutMs(): number | undefined {
    return this.call.deadline === undefined ? undefined : this.call.deadline - performance.now();
  }

  get metadata(): Metadata {
    return { headers: this.#responseHeader, trailers: this.#responseTrailer };
  }
}

/** Without the pseudo-headers of HTTP/2, whose names `Headers` does not accept. */
function toHeaders(received: IncomingHttpHeaders): Headers {
  const headers = new Headers();
  for (const [name, value = []] of Object.entries(received)) {
    if (!name.startsWith(":")) {
      for (const each of [value].flat()) headers.append(name, each);
    }
  }
  return headers;
}
