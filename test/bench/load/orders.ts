import { randomBytes } from "node:crypto";
import { create, toBinary } from "@bufbuild/protobuf";
import { durationFromMs } from "@bufbuild/protobuf/wkt";
import {
  CommitReservationRequestSchema,
  ReserveRequestSchema,
} from "../../../gen/inventory/v1/reservation_pb.ts";
import type { Call } from "./caller.ts";
import { enveloped } from "./frames.ts";

const TTL_MS = 600_000;
const RESERVE = "/inventory.v1.ReservationService/Reserve";
const COMMIT = "/inventory.v1.ReservationService/CommitReservation";
const RESERVATION_ID_LENGTH = 24;
/** "A": a product of a line is a letter that is repeated, and reservations are "r". */
const FIRST_PLACEHOLDER = 65;

/** Builds the calls of Orders: frames are encoded once, and IDs of the same length are written into them. */
export class Orders {
  readonly #run = randomBytes(6).toString("hex");
  readonly #reserve: Template;
  readonly #commit: Template;
  #made = 0;

  /** All product IDs have the length of `productId`; all orders have as many lines, of one unit each. */
  constructor(productId: string, lines = 1) {
    const reservationId = "r".repeat(RESERVATION_ID_LENGTH);
    const products = Array.from({ length: lines }, (_, line) =>
      String.fromCharCode(FIRST_PLACEHOLDER + line).repeat(productId.length),
    );
    this.#reserve = new Template(
      toBinary(
        ReserveRequestSchema,
        create(ReserveRequestSchema, {
          reservationId,
          lines: products.map((product) => ({ productId: product, quantity: 1 })),
          ttl: durationFromMs(TTL_MS),
        }),
      ),
      [reservationId, ...products],
    );
    this.#commit = new Template(
      toBinary(CommitReservationRequestSchema, create(CommitReservationRequestSchema, { reservationId })),
      [reservationId],
    );
  }

  newId(): string {
    this.#made += 1;
    return `${this.#run}${String(this.#made).padStart(RESERVATION_ID_LENGTH - this.#run.length, "0")}`;
  }

  /** As many products as an order has lines. */
  reserve(reservationId: string, ...productIds: readonly string[]): Call {
    return { path: RESERVE, frame: this.#reserve.fill([reservationId, ...productIds]) };
  }

  /** Reserves one unit, in Connect's JSON over HTTP/1.1. */
  async reserveByJson(url: string, reservationId: string, productId: string): Promise<void> {
    const response = await fetch(`${url}${RESERVE}`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ reservationId, lines: [{ productId, quantity: 1 }] }),
    });
    const text = await response.text();
    if (!response.ok) {
      throw new Error(`Reserve responded with ${response.status}: ${text}`);
    }
  }

  commit(reservationId: string): Call {
    return { path: COMMIT, frame: this.#commit.fill([reservationId]) };
  }
}

/** A frame with placeholders for texts. */
class Template {
  readonly #frame: Buffer;
  readonly #places: readonly number[];

  constructor(message: Uint8Array, placeholders: readonly string[]) {
    this.#frame = enveloped(message);
    this.#places = placeholders.map((text) => this.#frame.indexOf(text));
  }

  fill(texts: readonly string[]): Buffer {
    const frame = Buffer.from(this.#frame);
    for (const [index, text] of texts.entries()) {
      frame.write(text, this.#places[index] ?? 0, "latin1");
    }
    return frame;
  }
}
