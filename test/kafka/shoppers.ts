import { randomUUID } from "node:crypto";
import { setTimeout as wait } from "node:timers/promises";
import { type Client, Code, ConnectError, createClient } from "@connectrpc/connect";
import { ReservationService } from "../../gen/inventory/v1/reservation_pb.ts";
import { type GrpcJsTransport, grpcJsTransport } from "../support/grpc-js-transport.ts";

const TRY_MS_MAX = 2_000;
/** Interval between two attempts of a call whose response was lost. */
const RETRY_MS = 50;

/** The outcome of a call. If an earlier attempt had no response, that attempt may still be executed after the refusal. */
type Verdict = "done" | "refused" | "refused after a lost attempt";

/** Shoppers that buy one unit at a time until stopped, and retry each purchase until it has a response. */
export class Shoppers {
  /** Acknowledged units by product. */
  readonly bought = new Map<string, number>();
  refused = 0;
  retries = 0;
  /** The duration of every attempt, ms. */
  durationsMs: number[] = [];
  readonly #transports: readonly GrpcJsTransport[];
  readonly #clients: readonly Client<typeof ReservationService>[];
  readonly #buying: Promise<unknown>;
  readonly #pauseMs: number;
  #stopped = false;

  /** Each shopper pauses for `pauseMs` between two purchases. */
  constructor(urls: readonly string[], count: number, nextProduct: () => string, pauseMs = 0) {
    this.#pauseMs = pauseMs;
    this.#transports = urls.map((url) => grpcJsTransport(new URL(url).host));
    this.#clients = this.#transports.map((transport) => createClient(ReservationService, transport));
    this.#buying = Promise.all(
      Array.from({ length: count }, (_, n) => this.#buyUntilStopped(n, nextProduct)),
    );
  }

  get purchases(): number {
    return [...this.bought.values()].reduce((sum, units) => sum + units, 0);
  }

  /** Resolves when every pending purchase has a response. */
  async stop(): Promise<void> {
    this.#stopped = true;
    await this.#buying;
    for (const transport of this.#transports) {
      transport[Symbol.dispose]();
    }
  }

  async #buyUntilStopped(shopper: number, nextProduct: () => string): Promise<void> {
    while (!this.#stopped) {
      const [reservationId, productId] = [randomUUID(), nextProduct()];
      const lines = [{ productId, quantity: 1 }];
      const reserved = await this.#untilAnswered(shopper, (client) =>
        client.reserve({ reservationId, lines }, { timeoutMs: TRY_MS_MAX }),
      );
      if (reserved !== "done") {
        this.refused += 1;
        if (reserved !== "refused") {
          // As Orders should: a late attempt then holds nothing.
          await this.#untilAnswered(shopper, (client) =>
            client.releaseReservation({ reservationId }, { timeoutMs: TRY_MS_MAX }),
          );
        }
        await wait(RETRY_MS);
        continue;
      }
      await this.#untilAnswered(shopper, (client) =>
        client.commitReservation({ reservationId }, { timeoutMs: TRY_MS_MAX }),
      );
      this.bought.set(productId, (this.bought.get(productId) ?? 0) + 1);
      if (this.#pauseMs > 0) {
        await wait(this.#pauseMs);
      }
    }
  }

  /** As Orders should: retries the same request until there is a response, on any server. */
  async #untilAnswered(
    shopper: number,
    call: (client: Client<typeof ReservationService>) => Promise<unknown>,
  ): Promise<Verdict> {
    for (let attempt = shopper; ; attempt++) {
      const client = this.#clients[attempt % this.#clients.length];
      if (client === undefined) {
        throw new Error("Shoppers need a server");
      }
      const start = performance.now();
      try {
        await call(client);
        this.durationsMs.push(performance.now() - start);
        return "done";
      } catch (error) {
        this.durationsMs.push(performance.now() - start);
        const { code } = ConnectError.from(error);
        if (code === Code.NotFound || code === Code.FailedPrecondition) {
          return attempt === shopper ? "refused" : "refused after a lost attempt";
        }
        this.retries += 1;
        await wait(RETRY_MS);
      }
    }
  }
}
