import type { IncomingHttpHeaders } from "node:http";
import { Code, type ContextValues, createContextValues } from "@connectrpc/connect";
import { type Call, callKey } from "../call.ts";
import type { CallContext } from "./methods.ts";
import { deadlineExceeded, type EncodedResponse, type Metadata } from "./unary-protocols.ts";
import type { UnaryWriter } from "./unary-writer.ts";

/** One call on the lane, which is answered once. What few methods ask for is made when they ask. */
export class UnaryCall implements CallContext {
  readonly #wire: UnaryWriter;
  readonly call: Call;
  /** Set while it is not known yet whether the call may come in. */
  admission: Promise<void> | undefined;
  #isOver = false;
  #timer: NodeJS.Timeout | undefined;
  #deadlineMs: number | undefined;
  #controller: AbortController | undefined;
  #requestHeader: Headers | undefined;
  #responseHeader: Headers | undefined;
  #responseTrailer: Headers | undefined;
  #values: ContextValues | undefined;

  constructor(call: Call, wire: UnaryWriter) {
    this.call = call;
    this.#wire = wire;
  }

  /** Throws where the call may not come in. */
  admit(): void {
    const admission = this.call.admit();
    if (admission instanceof Promise) {
      this.admission = admission;
      // Who waits for it is told; a call that is over by then has nobody who waits.
      admission.catch(() => {});
    }
  }

  /** Sends what `make` gives, unless the call is over or its caller gone. What cannot be sent is cut. No code is OK. */
  answer(code: Code | undefined, make: () => EncodedResponse): void {
    if (this.leave()) {
      try {
        if (!this.#wire.isGone) {
          this.#wire.send(make());
        }
      } catch {
        this.#wire.cut();
      }
      this.call.end(code);
    }
  }

  /** The caller is gone. */
  abandon(): void {
    if (this.leave()) {
      this.call.end(Code.Canceled);
    }
  }

  /** Ends the lane's part of the call. False where it was over already. */
  leave(): boolean {
    const wasOver = this.#isOver;
    this.#isOver = true;
    clearTimeout(this.#timer);
    return !wasOver;
  }

  endAfter(ms: number, end: () => void): void {
    this.#deadlineMs = Date.now() + ms;
    this.#timer = setTimeout(() => {
      this.#controller?.abort(deadlineExceeded());
      end();
    }, ms);
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
    return this.#deadlineMs === undefined ? undefined : this.#deadlineMs - Date.now();
  }

  get metadata(): Metadata {
    return { headers: this.#responseHeader, trailers: this.#responseTrailer };
  }
}

/** Without the pseudo-headers of HTTP/2, whose names no other header may have. */
function toHeaders(received: IncomingHttpHeaders): Headers {
  const headers = new Headers();
  for (const [name, value = []] of Object.entries(received)) {
    if (!name.startsWith(":")) {
      for (const each of [value].flat()) headers.append(name, each);
    }
  }
  return headers;
}
