import { appendFileSync, existsSync, mkdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

// Stand-ins for what Orders has of its own: a database of orders and a payment provider. Both are files, so that a checkout
// that crashed and the recovery job see the same data.

/** The newest state of each order, in a file of JSON lines. */
class Journal<State extends string> {
  readonly #file: string;

  constructor(dir: string, name: string) {
    mkdirSync(dir, { recursive: true });
    this.#file = join(dir, name);
  }

  write(orderId: string, state: State): void {
    appendFileSync(this.#file, `${JSON.stringify({ orderId, state })}\n`);
  }

  read(): Map<string, State> {
    const lines = existsSync(this.#file) ? readFileSync(this.#file, "utf8").trimEnd().split("\n") : [];
    return new Map(lines.map((line) => JSON.parse(line)).map(({ orderId, state }) => [orderId, state]));
  }
}

export type OrderState = "charging" | "shipped" | "declined" | "refunded" | "cancelled";

export class OrderBook {
  readonly #journal: Journal<OrderState>;

  constructor(dir: string) {
    this.#journal = new Journal(dir, "orders.jsonl");
  }

  record(orderId: string, state: OrderState): void {
    this.#journal.write(orderId, state);
  }

  stateOf(orderId: string): OrderState | undefined {
    return this.#journal.read().get(orderId);
  }

  /** The orders whose charge may have happened and that have not ended. */
  unfinished(): string[] {
    return [...this.#journal.read()].filter(([, state]) => state === "charging").map(([orderId]) => orderId);
  }
}

/** What the provider knows of a payment. `unknown`: it has not arrived there, or not yet. */
export type Payment = "charged" | "declined" | "refunded" | "unknown";

/** `timeout`: charged, but the response is lost. `lost`: never arrives. `crash`: charged, then this process dies. */
export type Card = "good" | "declined" | "timeout" | "lost" | "crash";

export class PaymentTimeout extends Error {}

/** The order ID is the idempotency key, as with real providers: a repeated charge or refund happens once. */
export class FakePayments {
  readonly #journal: Journal<Payment>;

  constructor(dir: string) {
    this.#journal = new Journal(dir, "payments.jsonl");
  }

  async find(orderId: string): Promise<Payment> {
    return this.#journal.read().get(orderId) ?? "unknown";
  }

  async charge(orderId: string, card: Card): Promise<Payment> {
    if (card === "lost") throw new PaymentTimeout("The payment provider did not respond");
    const known = await this.find(orderId);
    const payment = known !== "unknown" ? known : card === "declined" ? "declined" : "charged";
    if (known === "unknown") this.#journal.write(orderId, payment);
    if (card === "crash") process.kill(process.pid, "SIGKILL");
    if (card === "timeout") throw new PaymentTimeout("The payment provider did not respond");
    return payment;
  }

  async refund(orderId: string): Promise<void> {
    if ((await this.find(orderId)) === "charged") this.#journal.write(orderId, "refunded");
  }
}
