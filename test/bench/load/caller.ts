import { setTimeout as pause } from "node:timers/promises";
import { Envelopes } from "./envelopes.ts";
import { Http2Connection } from "./http2-connection.ts";

/** An encoded unary gRPC call. */
export interface Call {
  readonly path: string;
  readonly frame: Buffer;
}

const TRIES_MAX = 10;
const RETRY_MS = 100;

/**
 * Makes a call of Orders, which has an ID, and retries it while it is refused, such as while Redis is busy. Returns
 * the number of refusals.
 */
export async function untilDone(call: () => Promise<void>): Promise<number> {
  for (let refused = 0; ; refused++) {
    try {
      await call();
      return refused;
    } catch (error) {
      if (refused === TRIES_MAX) {
        throw error;
      }
    }
    await pause(RETRY_MS);
  }
}

/** Calls unary methods over a few connections in rotation. */
export class Caller {
  readonly #connections: readonly { readonly http2: Http2Connection; readonly heads: Map<string, Buffer> }[];
  readonly #pending = new Set<PromiseWithResolvers<void>>();
  #next = 0;

  constructor(url: string, connections: number) {
    const onClose = (reason: Error): void => {
      for (const answered of this.#pending) {
        answered.reject(reason);
      }
    };
    this.#connections = Array.from({ length: connections }, () => ({
      http2: new Http2Connection({ url, onClose }),
      heads: new Map(),
    }));
  }

  /** Resolves with the message of the response. Rejects if there is none, which is so for every status except OK. */
  call({ path, frame }: Call): Promise<void> {
    const connection = this.#connections[this.#next++ % this.#connections.length];
    if (connection === undefined) {
      throw new RangeError("A caller needs at least one connection");
    }
    const { http2, heads } = connection;
    if (http2.isClosed) {
      return Promise.reject(new Error(`${path} was not sent: the server has closed the connection`));
    }
    const head = heads.get(path) ?? http2.grpcHead(path);
    heads.set(path, head);
    const answered = Promise.withResolvers<void>();
    this.#pending.add(answered);
    let messages = 0;
    const envelopes = new Envelopes(() => {
      messages += 1;
    });
    http2.request(head, frame, {
      onData: (bytes, start, end) => envelopes.push(bytes, start, end),
      onEnd: (code) => {
        this.#pending.delete(answered);
        if (messages === 1) {
          answered.resolve();
        } else {
          answered.reject(new Error(`${path} had a response without a message (HTTP/2 code ${code})`));
        }
      },
    });
    return answered.promise;
  }

  close(): void {
    for (const { http2 } of this.#connections) {
      http2.close();
    }
  }
}
