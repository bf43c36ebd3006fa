import { randomUUID } from "node:crypto";
import { setTimeout as wait } from "node:timers/promises";
import { type Client, Code, ConnectError, createClient } from "@connectrpc/connect";
import { ReservationService } from "../../gen/inventory/v1/reservation_pb.ts";
import { type GrpcJsTransport, grpcJsTransport } from "../support/grpc-js-transport.ts";

const TRY_MS_MAX = 2_000;
/** Between two tries of a call whose answer was lost. */
const RETRY_MS = 50;

/** What a call came to. Where a try before it had no answer, it may happen after the refusal. */
type Verdict = "done" | "refused" | "refused after a lost try";

/** Shoppers who buy one unit after the other until they are stopped, each purchase until it has an answer. */
export class Shoppers {
  /** Units bought by product, as acknowledged. */
  readonly bought = new Map<string, number>();
  refused = 0;
  retries = 0;
  readonly #transports: readonly GrpcJsTransport[];
  readonly #clients: readonly Client<typeof ReservationService>[];
  readonly #buying: Promise<unknown>;
  #stopped = false;

  constructor(urls: readonly string[], count: number, nextProduct: () => string) {
    this.#transports = urls.map((url) => grpcJsTransport(new URL(url).host));
    this.#clients = this.#transports.map((transport) => createClient(ReservationService, transport));
    this.#buying = Promise.all(
      Array.from({ length: count }, (_, n) => this.#buyUntilStopped(n, nextProduct)),
    );
  }

  get purchases(): number {
    return [...this.bought.values()].reduce((sum, units) => sum + units, 0);
  }

  /** Resolves when every purchase under way has an answer. */
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
          // As Orders should: now the late try holds nothing.
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
    }
  }

  /** As Orders should: the same request until there is an answer, from whichever server. */
  async #untilAnswered(
    shopper: number,
    call: (client: Client<typeof ReservationService>) => Promise<unknown>,
  ): Promise<Verdict> {
    for (let attempt = shopper; ; attempt++) {
      const client = this.#clients[attempt % this.#clients.length];
      if (client === undefined) {
        throw new Error("Shoppers need a server");
      }
      try {
        await call(client);
        return "done";
      } catch (error) {
        const { code } = ConnectError.from(error);
        if (code === Code.NotFound || code === Code.FailedPrecondition) {
          return attempt === shopper ? "refused" : "refused after a lost try";
        }
        this.retries += 1;
        await wait(RETRY_MS);
      }
    }
  }
}
