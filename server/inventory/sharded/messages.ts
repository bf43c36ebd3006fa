import type { ShortLine } from "../errors.ts";
import type { Line, Reservation, ReservationState } from "../reservation.ts";

// The messages of the protocol that makes a reservation all-or-nothing when its record and its products are in
// different buckets, each of which is changed by atomic steps of its own (docs/decisions/0030-reservations-across-shards.md).
//
// The order's home bucket has the record, which alone decides. The buckets of the products have the holds: what the
// reservation holds and has sold of each product, changed in the same step as the ledgers. Every step may be repeated,
// delayed and reordered.

/** What a reservation holds and has sold of one product, in units. */
export interface Target {
  readonly productId: string;
  readonly held: number;
  readonly sold: number;
}

/** Why an effect changes the ledgers. `reserved`: the holds of a decided reservation were lost and are taken again. */
export type EffectCause = "reserved" | "committed" | "released" | "expired" | "returned";

/**
 * What one decision changes in the ledgers. Its targets are absolute numbers, so that a repeated, late or skipped effect
 * does no harm.
 */
export interface Effect {
  /** Number of the decision: 0 for the reservation itself, then increasing by one. */
  readonly revision: number;
  /** The epoch of the reservation at the time of the decision. */
  readonly epoch: number;
  readonly cause: EffectCause;
  readonly referenceId: string;
  readonly actor: string | undefined;
  /** One per product of the reservation, after the decision. */
  readonly targets: readonly Target[];
}

export interface Step<Name extends string> {
  readonly step: Name;
  /** The bucket whose keys the step touches. */
  readonly bucket: number;
  readonly reservationId: string;
}

/**
 * One attempt to reserve is an epoch. A hold of a later epoch replaces one of an earlier epoch, and `fingerprint` tells two
 * attempts of the same epoch apart.
 */
interface Attempt {
  readonly epoch: number;
  /** Of the lines of the whole attempt, in all buckets. */
  readonly fingerprint: string;
}

/** Holds all lines in this bucket or none. `effects` of earlier decisions are applied first. */
export interface Hold extends Step<"hold">, Attempt {
  readonly lines: readonly Line[];
  readonly effects: readonly Effect[];
  readonly actor: string | undefined;
}

/** Gives back what an attempt holds in this bucket. Only for an attempt that can no longer be decided: see `Refuse`. */
export interface Cancel extends Step<"cancel">, Attempt {
  readonly actor: string | undefined;
}

/** Brings ledgers and holds of this bucket to the targets of newer effects. */
export interface Apply extends Step<"apply"> {
  readonly effects: readonly Effect[];
}

export interface Read extends Step<"read"> {}

/** Makes the reservation active, if its holds are of the next epoch. */
export interface Decide extends Step<"decide">, Attempt {
  readonly lines: readonly Line[];
  readonly ttlMs: number;
}

/** Makes it impossible to decide this epoch, unless it is decided already. */
export interface Refuse extends Step<"refuse"> {
  readonly epoch: number;
}

export interface Commit extends Step<"commit"> {
  /** One line per product. Empty: everything that is held. */
  readonly lines: readonly Line[];
  readonly strict: boolean;
  readonly actor: string | undefined;
}

/** Commits an expired reservation whose units were held again under a later epoch. */
export interface Revive extends Step<"revive">, Attempt {
  readonly lines: readonly Line[];
  readonly actor: string | undefined;
}

export interface Release extends Step<"release"> {
  readonly actor: string | undefined;
}

export interface Extend extends Step<"extend"> {
  readonly ttlMs: number;
}

export interface Return extends Step<"return"> {
  readonly returnId: string;
  readonly fingerprint: string;
  /** One line per product, with the units on hand when they were last read; absent if the product has no ledger. */
  readonly lines: readonly (Line & { readonly onHand: number | undefined })[];
  readonly actor: string | undefined;
}

/** Forgets the effects up to a revision: every bucket has applied them. */
export interface Settle extends Step<"settle"> {
  readonly revision: number;
}

export type Message =
  | Hold
  | Cancel
  | Apply
  | Read
  | Decide
  | Refuse
  | Commit
  | Revive
  | Release
  | Extend
  | Return
  | Settle;

/** The reservation, and the effects of its decisions that are not settled yet. */
interface Decided {
  readonly status: "ok";
  readonly reservation: Reservation;
  readonly effects: readonly Effect[];
}

export interface Refused {
  readonly status: "refused";
  readonly nextEpoch: number;
}

interface Status<Name extends string> {
  readonly status: Name;
}

interface Ended extends Status<"ended"> {
  readonly state: ReservationState;
}

export type HoldReply =
  | Status<"ok">
  /** Nothing is held, because of these lines: of products that are unknown or deleted, and of products of which too few are left. */
  | (Status<"short"> & { readonly unknown: readonly string[]; readonly shortage: readonly ShortLine[] })
  /** Another attempt has taken over: this one was cancelled, one of the same epoch has other lines, or one of a later epoch has begun. */
  | Status<"superseded">;

export type ReadReply =
  /** `fingerprint` is that of the lines with which it was reserved; absent if an unknown ID was released. */
  | (Decided & { readonly fingerprint: string | undefined })
  | (Status<"absent"> & { readonly nextEpoch: number });

export type DecideReply =
  | Decided
  | Refused
  | Status<"reused">
  /** The ID was released before it was reserved. */
  | Status<"released_before">;

export type RefuseReply =
  | Refused
  /** The epoch is decided, by an attempt with this fingerprint. `effects` has at least one: the newest, if all are settled. */
  | (Status<"decided"> & { readonly fingerprint: string; readonly effects: readonly Effect[] });

export type CommitReply =
  | Decided
  | Status<"missing">
  | Ended
  | Status<"reused">
  | (Status<"too_large"> & { readonly productId: string; readonly held: number })
  /** It has expired: its units have to be held again under the next epoch. */
  | (Status<"expired"> & {
      readonly nextEpoch: number;
      readonly sold: readonly Line[];
      readonly effects: readonly Effect[];
    });

export type ReviveReply = Decided | Refused;

export type ReleaseReply = Decided | Ended;

export type ExtendReply = Decided | Status<"missing"> | Ended;

export type ReturnReply =
  | Decided
  | Status<"missing">
  | Status<"reused">
  | Ended
  | (Status<"other"> & { readonly productId: string })
  | (Status<"too_large"> & { readonly productId: string; readonly left: number })
  | (Status<"range"> & { readonly productId: string; readonly onHand: number });

export interface Replies {
  readonly hold: HoldReply;
  readonly cancel: Status<"ok">;
  readonly apply: Status<"ok">;
  readonly read: ReadReply;
  readonly decide: DecideReply;
  readonly refuse: RefuseReply;
  readonly commit: CommitReply;
  readonly revive: ReviveReply;
  readonly release: ReleaseReply;
  readonly extend: ExtendReply;
  readonly return: ReturnReply;
  readonly settle: Status<"ok">;
}

export type ReplyTo<M extends Message> = Replies[M["step"]];
export type Reply = Replies[Message["step"]];
