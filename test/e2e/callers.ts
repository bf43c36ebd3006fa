import { type CallOptions, type Client, Code, ConnectError, createClient } from "@connectrpc/connect";
import { ReservationService, ShortageSchema } from "../../gen/inventory/v1/reservation_pb.ts";
import { StockService } from "../../gen/inventory/v1/stock_pb.ts";
import { SupplyService } from "../../gen/inventory/v1/supply_pb.ts";
import { type GrpcJsTransport, grpcJsTransport } from "../support/grpc-js-transport.ts";

/** How long one try may take unless more is given: a frozen server must not hold a caller. */
const TRY_MS_MAX = 2_000;

/** What a caller tries again: nobody knows whether it happened, or it is known that it did not. */
const RETRIED: ReadonlySet<Code> = new Set([
  Code.Unavailable,
  Code.ResourceExhausted,
  Code.DeadlineExceeded,
  // A connection that broke within a call shows as one of these.
  Code.Aborted,
  Code.Canceled,
  Code.Unknown,
]);

/** The answer was lost, and the caller has asked no more. */
export class GaveUp extends Error {}

/** A native gRPC caller with a connection of its own to each of some servers. */
export class Caller implements Disposable {
  readonly #transports: readonly GrpcJsTransport[];
  readonly #servers: readonly {
    readonly reservations: Client<typeof ReservationService>;
    readonly supply: Client<typeof SupplyService>;
    readonly stock: Client<typeof StockService>;
  }[];
  readonly #tryMsMax: number;
  #turn: number;
  #isClosed = false;
  /** Tries that ended without an answer, and what was told of them. */
  retries = 0;
  readonly reasons = new Map<string, number>();

  constructor(urls: readonly string[], turn = 0, tryMsMax = TRY_MS_MAX) {
    this.#turn = turn;
    this.#tryMsMax = tryMsMax;
    this.#transports = urls.map((url) => grpcJsTransport(new URL(url).host));
    this.#servers = this.#transports.map((transport) => ({
      reservations: createClient(ReservationService, transport),
      supply: createClient(SupplyService, transport),
      stock: createClient(StockService, transport),
    }));
  }

  /**
   * Asks one server after the other until one answers; the answer may be a refusal. The next call begins
   * with the next server. With `triesMax`, throws `GaveUp` in the end.
   */
  async ask<T>(
    call: (server: Caller["server"], options: CallOptions) => Promise<T>,
    triesMax = Number.POSITIVE_INFINITY,
  ): Promise<T> {
    for (let attempt = 1; ; attempt++) {
      this.#turn += 1;
      try {
        return await call(this.server, { timeoutMs: this.#tryMsMax });
      } catch (error) {
        if (!isRetried(error) || this.#isClosed) {
          throw error;
        }
        this.retries += 1;
        const reason = String(error).slice(0, 80);
        this.reasons.set(reason, (this.reasons.get(reason) ?? 0) + 1);
        if (attempt >= triesMax) {
          throw new GaveUp(String(error));
        }
        // As a caller should: a growing pause, so that a server that is away is not hammered.
        await new Promise((resolve) => setTimeout(resolve, Math.min(10 * 2 ** attempt, 200)));
      }
    }
  }

  get server() {
    const server = this.#servers[this.#turn % this.#servers.length];
    if (server === undefined) {
      throw new Error("A caller needs a server");
    }
    return server;
  }

  [Symbol.dispose](): void {
    this.#isClosed = true;
    for (const transport of this.#transports) {
      transport[Symbol.dispose]();
    }
  }
}

function isRetried(error: unknown): boolean {
  return error instanceof ConnectError && RETRIED.has(error.code);
}

/** A refusal for want of stock, with the lines it names. */
export function shortageOf(error: unknown): readonly { readonly productId: string }[] | undefined {
  if (!(error instanceof ConnectError) || error.code !== Code.FailedPrecondition) {
    return undefined;
  }
  const [shortage] = error.findDetails(ShortageSchema);
  return shortage?.lines;
}

export function hasCode(error: unknown, code: Code): boolean {
  return error instanceof ConnectError && error.code === code;
}

/** The values below which 50% and 99% of some times lie, and the largest, in ms. */
export function timesTold(times: readonly number[]): string {
  const sorted = [...times].sort((a, b) => a - b);
  const at = (part: number): number => Math.round(sorted[Math.floor(part * (sorted.length - 1))] ?? 0);
  return `p50 ${at(0.5)} ms, p99 ${at(0.99)} ms, most ${at(1)} ms of ${sorted.length}`;
}

/** Why callers had to try again, the most frequent reason first. */
export function reasonsTold(callers: readonly Caller[], most = 6): string {
  const all = new Map<string, number>();
  for (const [reason, count] of callers.flatMap((caller) => [...caller.reasons])) {
    all.set(reason, (all.get(reason) ?? 0) + count);
  }
  const sorted = [...all].sort((a, b) => b[1] - a[1]).slice(0, most);
  return sorted.map(([reason, count]) => `${count}x ${reason}`).join("; ");
}
