import { type CallOptions, type Client, Code, ConnectError, createClient } from "@connectrpc/connect";
import { ReservationService, ShortageSchema } from "../../gen/inventory/v1/reservation_pb.ts";
import { StockService } from "../../gen/inventory/v1/stock_pb.ts";
import { SupplyService } from "../../gen/inventory/v1/supply_pb.ts";
import { type GrpcJsTransport, grpcJsTransport } from "../support/grpc-js-transport.ts";

/** Default deadline of one attempt: a frozen server must not block a caller. */
const TRY_MS_MAX = 2_000;

/** Codes that a caller retries: the call did not happen, or its outcome is unknown. */
const RETRIED: ReadonlySet<Code> = new Set([
  Code.Unavailable,
  Code.ResourceExhausted,
  Code.DeadlineExceeded,
  // A connection that breaks during a call causes one of these.
  Code.Aborted,
  Code.Canceled,
  Code.Unknown,
]);

/** The response was lost, and the caller stopped retrying. */
export class GaveUp extends Error {}

/** A native gRPC caller with a separate connection to each of its servers. */
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
  /** When the latest attempt began, ms since 1970. */
  attemptedAtMs = 0;
  /** Failed attempts, and their errors. */
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
   * Calls one server after the other until one responds, possibly with an error that is not retried. The next call starts with
   * the next server. With `triesMax`, throws `GaveUp` after that many attempts.
   */
  async ask<T>(
    call: (server: Caller["server"], options: CallOptions) => Promise<T>,
    triesMax = Number.POSITIVE_INFINITY,
  ): Promise<T> {
    for (let attempt = 1; ; attempt++) {
      this.#turn += 1;
      this.attemptedAtMs = Date.now();
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
        // Backoff, as clients should do it, to spare a server that is unavailable.
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

interface ShortLine {
  readonly productId: string;
  readonly requested: number;
  readonly available: number;
}

/** A refusal because of a shortage, with its lines. */
export function shortageOf(error: unknown): readonly ShortLine[] | undefined {
  if (!(error instanceof ConnectError) || error.code !== Code.FailedPrecondition) {
    return undefined;
  }
  const [shortage] = error.findDetails(ShortageSchema);
  return shortage?.lines;
}

export function hasCode(error: unknown, code: Code): boolean {
  return error instanceof ConnectError && error.code === code;
}

/** Median, 99th percentile and maximum of the times, ms. */
export function timesTold(times: readonly number[]): string {
  const sorted = [...times].sort((a, b) => a - b);
  const at = (part: number): number => Math.round(sorted[Math.floor(part * (sorted.length - 1))] ?? 0);
  return `p50 ${at(0.5)} ms, p99 ${at(0.99)} ms, most ${at(1)} ms of ${sorted.length}`;
}

/** Reasons of retries, the most frequent first. */
export function reasonsTold(callers: readonly Caller[], most = 6): string {
  const all = new Map<string, number>();
  for (const [reason, count] of callers.flatMap((caller) => [...caller.reasons])) {
    all.set(reason, (all.get(reason) ?? 0) + count);
  }
  const sorted = [...all].sort((a, b) => b[1] - a[1]).slice(0, most);
  return sorted.map(([reason, count]) => `${count}x ${reason}`).join("; ");
}
