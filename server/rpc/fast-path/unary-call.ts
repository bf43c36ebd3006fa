import type { Code } from "@connectrpc/connect";
import type { Call } from "../call.ts";
import { FastPathCall } from "./fast-path-call.ts";
import type { EncodedResponse } from "./unary-protocols.ts";
import type { UnaryWriter } from "./unary-writer.ts";

/** A unary call on the fast path. */
export class UnaryCall extends FastPathCall {
  readonly #writer: UnaryWriter;

  constructor(call: Call, writer: UnaryWriter) {
    super(call);
    this.#writer = writer;
  }

  /** Sends the response, unless the call is over or its client disconnected. A code of `undefined` is OK. */
  respond(code: Code | undefined, encode: () => EncodedResponse): void {
    if (this.release()) {
      try {
        if (!this.#writer.isClosed) {
          this.#writer.send(encode());
        }
      } catch {
        this.#writer.destroy();
      }
      this.call.end(code);
    }
  }
}
