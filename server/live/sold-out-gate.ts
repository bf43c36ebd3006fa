import { setTimeout as pause } from "node:timers/promises";
import { InventoryError } from "../inventory/errors.ts";
import { stockShort } from "../inventory/refusals.ts";
import type { Line, Reservation } from "../inventory/reservation.ts";
import type { ReservationStore, ReserveRequest } from "../inventory/store.ts";
import type { Mirror } from "./mirror.ts";

/** Interval between two checks of reservation IDs, ms. The calls between two checks share the next one. */
const ID_CHECK_INTERVAL_MS = 25;

/** What the store said about a product without an available unit. */
interface SoldOut {
  /** The version of the product at which no unit was available. */
  readonly version: number;
  /** When the next call is sent to the store, as a probe; `Infinity` while one is in flight. */
  probeAtMs: number;
  readonly untilMs: number;
  /** The latest refusal of a call for which only this product was short. Most calls are for the same quantity. */
  refusal?: { readonly quantity: number; readonly error: InventoryError };
}

interface SoldOutGateOptions {
  readonly mirror: Mirror;
  readonly reservations: Pick<ReservationStore, "reserve" | "findKnown">;
  /** How long a refusal of the store is repeated, ms. 0 turns the gate off. */
  readonly ageMsMax: number;
  /** That of `performance` unless given. */
  readonly now?: () => number;
}

/**
 * Refuses reservations of sold-out products without running them in the store. In a flash sale nearly all calls are
 * such refusals, and each would run in the store's single thread.
 *
 * After the store refused a reservation because a product has no available unit, further ones of the product are refused
 * for `ageMsMax`. In the second half of this time one call is sent to the store as a probe, whose refusal
 * restarts the time. The gate opens at once when this server acknowledges a newer version of the product, or the
 * change stream delivers one that has available units.
 *
 * The refusal of a new reservation needs no record, but a repeated call must get the reservation that its ID has.
 * So each ID is looked up in the store before it is refused, with those of other calls in one command
 * (docs/decisions/0031-sold-out-gate.md).
 */
export class SoldOutGate {
  readonly #mirror: Mirror;
  readonly #reservations: SoldOutGateOptions["reservations"];
  readonly #ageMsMax: number;
  readonly #now: () => number;
  readonly #ids: IdChecks;
  /** By product ID, the oldest first. */
  readonly #soldOut = new Map<string, SoldOut>();
  /** Number of calls in flight in the store, by reservation ID. */
  readonly #inFlight = new Map<string, number>();
  #refusals = 0;

  constructor({ mirror, reservations, ageMsMax, now = () => performance.now() }: SoldOutGateOptions) {
    this.#mirror = mirror;
    this.#reservations = reservations;
    this.#ageMsMax = ageMsMax;
    this.#now = now;
    this.#ids = new IdChecks((ids) => reservations.findKnown(ids));
  }

  /** Number of calls that were refused without running in the store. */
  get refusals(): number {
    return this.#refusals;
  }

  /** As `ReservationStore.reserve`. A `STOCK_SHORT` may name only some of the short lines, and be `ageMsMax` old. */
  async reserve(request: ReserveRequest): Promise<Reservation> {
    if (this.#refusedLines(request.lines).length === 0 || this.#claimProbe(request.lines)) {
      return this.#send(request);
    }
    // A call with this ID that is in flight may be about to reserve. The store runs the two in order.
    if (this.#inFlight.has(request.reservationId) || (await this.#ids.isKnown(request.reservationId))) {
      return this.#send(request);
    }
    const refused = this.#refusedLines(request.lines);
    if (refused.length === 0) {
      return this.#send(request);
    }
    this.#refusals += 1;
    throw this.#refusalOf(refused);
  }

  /** Calls for the same quantity of one product get the same error, which is then encoded once. */
  #refusalOf(refused: readonly Line[]): InventoryError {
    const [first] = refused;
    const known = first && refused.length === 1 ? this.#soldOut.get(first.productId) : undefined;
    if (known?.refusal !== undefined && known.refusal.quantity === first?.quantity) {
      return known.refusal.error;
    }
    const error = stockShort(
      refused.map(({ productId, quantity }) => ({ productId, requested: quantity, available: 0 })),
    );
    if (known !== undefined && first !== undefined) {
      known.refusal = { quantity: first.quantity, error };
    }
    return error;
  }

  async #send(request: ReserveRequest): Promise<Reservation> {
    if (this.#ageMsMax === 0) {
      return this.#reservations.reserve(request);
    }
    const { reservationId } = request;
    this.#inFlight.set(reservationId, (this.#inFlight.get(reservationId) ?? 0) + 1);
    try {
      return await this.#reservations.reserve(request);
    } catch (error) {
      if (error instanceof InventoryError && error.code === "STOCK_SHORT") {
        this.#noteSoldOut(error);
      }
      throw error;
    } finally {
      const others = (this.#inFlight.get(reservationId) ?? 0) - 1;
      if (others > 0) {
        this.#inFlight.set(reservationId, others);
      } else {
        this.#inFlight.delete(reservationId);
      }
    }
  }

  #noteSoldOut({ shortage }: InventoryError): void {
    const now = this.#now();
    this.#dropExpired(now);
    for (const { productId, available, version } of shortage) {
      if (
        available === 0 &&
        version !== undefined &&
        version >= (this.#soldOut.get(productId)?.version ?? 0)
      ) {
        this.#soldOut.delete(productId);
        this.#soldOut.set(productId, {
          version,
          probeAtMs: now + this.#ageMsMax / 2,
          untilMs: now + this.#ageMsMax,
        });
      }
    }
  }

  /** The lines of products that are sold out, as far as this server knows. */
  #refusedLines(lines: readonly Line[]): Line[] {
    return this.#soldOut.size === 0 ? [] : lines.filter(({ productId }) => this.#isSoldOut(productId));
  }

  #isSoldOut(productId: string): boolean {
    const known = this.#soldOut.get(productId);
    if (known === undefined) {
      return false;
    }
    if (this.#now() >= known.untilMs || this.#hasNewerUnits(productId, known.version)) {
      this.#soldOut.delete(productId);
      return false;
    }
    return true;
  }

  /** Whether the product has changed since `version`, unless it still has no available unit. */
  #hasNewerUnits(productId: string, version: number): boolean {
    const state = this.#mirror.current(productId);
    return state === undefined || (state.version > version && (state.available > 0 || state.deleted));
  }

  /** Whether the call is to be sent to the store as the probe of one of its lines. */
  #claimProbe(lines: readonly Line[]): boolean {
    const now = this.#now();
    const due = lines
      .map(({ productId }) => this.#soldOut.get(productId))
      .find((known) => known !== undefined && now >= known.probeAtMs);
    if (due === undefined) {
      return false;
    }
    due.probeAtMs = Number.POSITIVE_INFINITY;
    return true;
  }

  #dropExpired(now: number): void {
    for (const [productId, { untilMs }] of this.#soldOut) {
      if (untilMs > now) {
        return;
      }
      this.#soldOut.delete(productId);
    }
  }
}

/** Looks up reservation IDs: at most one lookup per interval, for all IDs that arrived until then. */
class IdChecks {
  readonly #findKnown: ReservationStore["findKnown"];
  #waiting: string[] = [];
  #next: Promise<ReadonlySet<string>> | undefined;
  #nextAtMs = Number.NEGATIVE_INFINITY;

  constructor(findKnown: ReservationStore["findKnown"]) {
    this.#findKnown = findKnown;
  }

  async isKnown(reservationId: string): Promise<boolean> {
    this.#waiting.push(reservationId);
    this.#next ??= this.#check();
    return (await this.#next).has(reservationId);
  }

  async #check(): Promise<ReadonlySet<string>> {
    await pause(Math.max(0, this.#nextAtMs - performance.now()));
    const ids = this.#waiting;
    this.#waiting = [];
    this.#next = undefined;
    this.#nextAtMs = performance.now() + ID_CHECK_INTERVAL_MS;
    return this.#findKnown(ids);
  }
}
