import type { ChangeKey } from "../inventory/change-history.ts";
import type { ShortLine } from "../inventory/errors.ts";
import { available } from "../inventory/ledger.ts";
import { isDeleted } from "../inventory/product-event.ts";
import type { Line } from "../inventory/reservation.ts";
import type { Apply, Cancel, Effect, Hold, HoldReply, Target } from "../inventory/sharded/messages.ts";
import { ledgerOf, type Products } from "./products.ts";
import { Retention } from "./retention.ts";

/** What a reservation holds and has sold of the products of one bucket. */
export interface HoldRecord {
  epoch: number;
  /** Of the attempt of this epoch. */
  fingerprint: string;
  /** Revision of the newest effect applied. `BEFORE_ANY` until the attempt is known to be decided. */
  revision: number;
  targets: readonly Target[];
  isCancelled: boolean;
}

/** The revision of a hold to which no effect was applied. That of the reservation itself is 0. */
const BEFORE_ANY = -1;

/** Called with each change of a ledger that a return makes. */
export type OnReturned = (reservationId: string, returnId: string, change: ChangeKey) => void;

/** The holds of one bucket. Every method is an atomic step. */
export class Holds {
  readonly records = new Map<string, HoldRecord>();
  /** Reservations whose hold may belong to an attempt that was never decided, with the time since when, ms since 1970. */
  readonly undecided = new Map<string, number>();
  readonly #retention: Retention;
  readonly #products: Products;
  readonly #now: () => number;
  readonly #onReturned: OnReturned;

  constructor(products: Products, now: () => number, retentionMs: number, onReturned: OnReturned) {
    this.#products = products;
    this.#now = now;
    this.#retention = new Retention(now, retentionMs, (id) => this.records.delete(id));
    this.#onReturned = onReturned;
  }

  hold({ reservationId, epoch, fingerprint, lines, effects, actor }: Hold): HoldReply {
    this.#retention.forgetDue();
    if (effects.length > 0) {
      this.#apply(reservationId, effects);
    }
    const known = this.records.get(reservationId);
    if (known !== undefined && known.epoch === epoch && known.fingerprint === fingerprint) {
      return { status: known.isCancelled ? "superseded" : "ok" };
    }
    if (known !== undefined && known.epoch >= epoch) {
      return { status: "superseded" };
    }
    const held = new Map(known?.targets.map((target) => [target.productId, target.held]));
    const refusal = this.#refusalOf(lines, held);
    if (refusal !== undefined) {
      return refusal;
    }
    // An earlier epoch's attempt is not decided, or there would be no later one. What both hold stays held.
    const targets = lines.map(({ productId, quantity }) => ({ productId, held: quantity, sold: 0 }));
    const dropped = (known?.targets ?? []).filter((target) => !lines.some(isOf(target)));
    for (const { productId, held: before } of dropped) {
      this.#change(productId, "released", reservationId, actor, -before, 0);
    }
    for (const { productId, held: after } of targets) {
      const delta = after - (held.get(productId) ?? 0);
      this.#change(productId, delta < 0 ? "released" : "reserved", reservationId, actor, delta, 0);
    }
    this.records.set(reservationId, {
      epoch,
      fingerprint,
      revision: known?.revision ?? BEFORE_ANY,
      targets,
      isCancelled: false,
    });
    this.undecided.set(reservationId, this.#now());
    this.#retention.keepUntilEnd(reservationId);
    return { status: "ok" };
  }

  cancel({ reservationId, epoch, fingerprint, actor }: Cancel): { readonly status: "ok" } {
    this.#retention.forgetDue();
    const known = this.records.get(reservationId);
    if (known?.epoch === epoch && known.fingerprint === fingerprint && !known.isCancelled) {
      for (const { productId, held } of known.targets) {
        this.#change(productId, "released", reservationId, actor, -held, 0);
      }
      known.targets = known.targets.map((target) => ({ ...target, held: 0 }));
      known.isCancelled = true;
      this.#end(reservationId);
    }
    return { status: "ok" };
  }

  apply({ reservationId, effects }: Apply): { readonly status: "ok" } {
    this.#retention.forgetDue();
    this.#apply(reservationId, effects);
    return { status: "ok" };
  }

  #apply(reservationId: string, effects: readonly Effect[]): void {
    const known = this.records.get(reservationId);
    const newer = effects.filter(({ revision }) => revision > (known?.revision ?? BEFORE_ANY));
    const newest = newer.at(-1);
    if (newest === undefined) {
      // Nothing new says that the hold is decided: it may have been taken after these effects were applied.
      return;
    }
    const record: HoldRecord = known ?? {
      epoch: newest.epoch,
      fingerprint: "",
      revision: BEFORE_ANY,
      targets: [],
      isCancelled: false,
    };
    this.records.set(reservationId, record);
    for (const effect of newer) {
      for (const target of effect.targets) {
        this.#moveTo(target, record, effect, reservationId);
      }
      record.targets = [
        ...record.targets.filter((target) => !effect.targets.some(isOf(target))),
        ...effect.targets,
      ];
      record.revision = effect.revision;
    }
    if (newest.epoch >= record.epoch) {
      this.undecided.delete(reservationId);
      if (record.targets.every(({ held }) => held === 0)) {
        this.#end(reservationId);
      }
    }
  }

  #moveTo(target: Target, { targets }: HoldRecord, effect: Effect, reservationId: string): void {
    const { productId } = target;
    const before = targets.find(isOf(target)) ?? { held: 0, sold: 0 };
    const [held, sold] = [target.held - before.held, target.sold - before.sold];
    const cause = effect.cause === "committed" && sold === 0 ? "released" : effect.cause;
    const referenceId = effect.cause === "returned" ? effect.referenceId : reservationId;
    const version = this.#change(productId, cause, referenceId, effect.actor, held, sold);
    if (version !== undefined && effect.cause === "returned") {
      this.#onReturned(reservationId, effect.referenceId, { productId, version });
    }
  }

  /** `held`: what this reservation holds already. */
  #refusalOf(lines: readonly Line[], held: ReadonlyMap<string, number>): HoldReply | undefined {
    const unknown: string[] = [];
    const shortage: ShortLine[] = [];
    for (const { productId, quantity } of lines) {
      const product = this.#products.find(productId);
      if (product === undefined || isDeleted(product.registers)) {
        unknown.push(productId);
        continue;
      }
      const ledger = ledgerOf(product);
      const left = available({ ...ledger, reserved: ledger.reserved - (held.get(productId) ?? 0) });
      if (left < quantity) {
        shortage.push({ productId, requested: quantity, available: left, version: product.version });
      }
    }
    return unknown.length + shortage.length === 0 ? undefined : { status: "short", unknown, shortage };
  }

  /** Returns the version of the change, or `undefined` if there is nothing to change. */
  #change(
    productId: string,
    cause: Effect["cause"],
    referenceId: string,
    actor: string | undefined,
    held: number,
    sold: number,
  ): number | undefined {
    if (held === 0 && sold === 0) {
      return undefined;
    }
    const product = this.#products.known(productId);
    this.#products.change(product, { cause, referenceId, actor }, () => {
      product.reserved += held;
      product.sold += sold;
    });
    return product.version;
  }

  #end(reservationId: string): void {
    this.undecided.delete(reservationId);
    this.#retention.keep(reservationId);
  }
}

function isOf({ productId }: { readonly productId: string }) {
  return (other: { readonly productId: string }) => other.productId === productId;
}
