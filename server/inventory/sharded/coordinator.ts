import { InventoryError } from "../errors.ts";
import {
  commitTooLarge,
  idReused,
  notInReservation,
  productUnknown,
  releasedBeforeReserved,
  reservationEnded,
  reservationUnknown,
  returnOutOfRange,
  returnTooLarge,
  stockShort,
} from "../refusals.ts";
import { type Line, linesFingerprint, type Reservation, sumLines } from "../reservation.ts";
import type { CommitRequest, ReserveRequest, ReturnRequest } from "../store.ts";
import type { Apply, Effect, Hold, HoldReply, Message, Reply, ReplyTo, Step } from "./messages.ts";

/** Attempts of one call. Each further one means that another call with the same ID has taken over in between. */
const ATTEMPTS_MAX_DEFAULT = 8;

/**
 * A part of the protocol: yields messages that may be sent at the same time, and continues with their replies, in the order of
 * the messages. If one of them fails, its error is thrown into it, once the others have ended.
 */
export type Protocol<T> = Generator<readonly Message[], T, readonly Reply[]>;

/** How a call ends, and what is to be done after the caller has the answer. If that is left undone, the repairs do the same. */
export type Outcome = ({ readonly reservation: Reservation } | { readonly error: unknown }) & {
  readonly followUp?: Protocol<void>;
};

/** One attempt to hold lines for a reservation. */
export interface Attempt {
  readonly reservationId: string;
  readonly epoch: number;
  readonly fingerprint: string;
}

/**
 * Coordinates the steps of reservations whose record and products are in different buckets. Keeps no state between calls, so
 * that any server may continue what another one began.
 *
 * The rule that carries the safety: an attempt's holds are cancelled only after the home bucket has replied that the attempt is
 * not decided. That reply makes it impossible to decide it later.
 */
export class Coordinator {
  readonly #bucketOf: (id: string) => number;
  readonly #readsFirst: boolean;
  readonly #attemptsMax: number;

  /**
   * `bucketOf` names the bucket of a product or of a reservation. `readsFirst`: reserve holds nothing before it has read whether
   * the ID is known. That takes a round trip more. `attemptsMax` bounds the attempts of one call.
   */
  constructor(
    bucketOf: (id: string) => number,
    { readsFirst = false, attemptsMax = ATTEMPTS_MAX_DEFAULT } = {},
  ) {
    this.#bucketOf = bucketOf;
    this.#readsFirst = readsFirst;
    this.#attemptsMax = attemptsMax;
  }

  *reserve({ reservationId, ttlMs, actor, ...request }: ReserveRequest): Protocol<Outcome> {
    const lines = sumLines(request.lines);
    let attempt: Attempt = { reservationId, epoch: 1, fingerprint: linesFingerprint(lines) };
    const ended = (error: unknown): Outcome => ({
      error,
      followUp: this.abandon(attempt, this.#bucketsOf(lines), actor),
    });
    try {
      for (let n = 0; n < this.#attemptsMax; n += 1) {
        // Lines may be held under the first epoch before the record is read. A hold of a later epoch replaces earlier ones, so
        // the record has to be read first: it may be decided.
        const isEarly = n === 0 && !this.#readsFirst;
        const read = this.#atHome("read", reservationId);
        const early = isEarly ? this.#holds(attempt, lines, [], actor) : [];
        let [known, ...held] = yield* ask([read, ...early] as const);
        if (known.status === "ok") {
          if (known.fingerprint === attempt.fingerprint) {
            return { reservation: known.reservation };
          }
          return ended(
            known.fingerprint === undefined
              ? releasedBeforeReserved(reservationId)
              : idReused("reservation_id", reservationId),
          );
        }
        if (isEarly && known.nextEpoch !== attempt.epoch) {
          continue;
        }
        attempt = { ...attempt, epoch: known.nextEpoch };
        if (!isEarly) {
          held = [...(yield* ask(this.#holds(attempt, lines, [], actor)))];
        }
        if (isSuperseded(held)) {
          yield* this.#giveUp(attempt);
          continue;
        }
        const refusal = refusalOf(held, lines);
        if (refusal !== undefined) {
          return held.some(({ status }) => status === "ok") ? ended(refusal) : { error: refusal };
        }
        const [decided] = yield* ask([
          { ...this.#atHome("decide", reservationId), ...attempt, lines, ttlMs },
        ] as const);
        switch (decided.status) {
          case "ok":
            return { reservation: decided.reservation };
          case "reused":
            return ended(idReused("reservation_id", reservationId));
          case "released_before":
            return ended(releasedBeforeReserved(reservationId));
        }
      }
    } catch (error) {
      return ended(error);
    }
    return ended(isContended(reservationId, this.#attemptsMax));
  }

  *commit({ reservationId, strict, actor, ...request }: CommitRequest): Protocol<Outcome> {
    const lines = sumLines(request.lines ?? []);
    let abandoned: (() => Protocol<void>) | undefined;
    const ended = (error: unknown): Outcome => ({ error, ...(abandoned && { followUp: abandoned() }) });
    try {
      for (let n = 0; n < this.#attemptsMax; n += 1) {
        const [reply] = yield* ask([
          { ...this.#atHome("commit", reservationId), lines, strict, actor },
        ] as const);
        switch (reply.status) {
          case "ok":
            return this.#decided(reply.reservation, reply.effects);
          case "missing":
            return ended(reservationUnknown(reservationId));
          case "ended":
            return ended(reservationEnded("commit", reservationId, reply.state));
          case "reused":
            return ended(idReused("reservation_id", reservationId));
          case "too_large":
            return ended(
              reply.held === 0
                ? notInReservation(request.lines ?? [], reply.productId)
                : commitTooLarge(request.lines ?? [], reply.productId, reply.held),
            );
        }
        const { sold, nextEpoch, effects } = reply;
        const attempt: Attempt = { reservationId, epoch: nextEpoch, fingerprint: linesFingerprint(sold) };
        abandoned = () => this.abandon(attempt, this.#bucketsOf(sold), actor);
        const held = yield* ask(this.#holds(attempt, sold, effects, actor));
        if (isSuperseded(held)) {
          yield* this.#giveUp(attempt);
          continue;
        }
        const shortage = shortageOf(held, sold);
        if (shortage.length > 0) {
          return ended(stockShort(shortage));
        }
        const [revived] = yield* ask([
          { ...this.#atHome("revive", reservationId), ...attempt, lines: sold, actor },
        ] as const);
        if (revived.status === "ok") {
          return this.#decided(revived.reservation, revived.effects);
        }
      }
    } catch (error) {
      return ended(error);
    }
    return ended(isContended(reservationId, this.#attemptsMax));
  }

  *release(reservationId: string, actor: string | undefined): Protocol<Outcome> {
    const [reply] = yield* ask([{ ...this.#atHome("release", reservationId), actor }] as const);
    return reply.status === "ok"
      ? this.#decided(reply.reservation, reply.effects)
      : { error: reservationEnded("release", reservationId, reply.state) };
  }

  *extend(reservationId: string, ttlMs: number): Protocol<Outcome> {
    const [reply] = yield* ask([{ ...this.#atHome("extend", reservationId), ttlMs }] as const);
    switch (reply.status) {
      case "ok":
        return { reservation: reply.reservation };
      case "missing":
        return { error: reservationUnknown(reservationId) };
      case "ended":
        return { error: reservationEnded("extend", reservationId, reply.state) };
    }
  }

  /** `onHandOf` has the units on hand of a line's product as last read, `undefined` if it has no ledger. */
  *return(
    { reservationId, returnId, actor, ...request }: ReturnRequest,
    onHandOf: (productId: string) => number | undefined,
  ): Protocol<Outcome> {
    const lines = sumLines(request.lines);
    const quantityOf = (productId: string) =>
      lines.find((line) => line.productId === productId)?.quantity ?? 0;
    const [reply] = yield* ask([
      {
        ...this.#atHome("return", reservationId),
        returnId,
        fingerprint: linesFingerprint(lines),
        lines: lines.map((line) => ({ ...line, onHand: onHandOf(line.productId) })),
        actor,
      },
    ] as const);
    switch (reply.status) {
      case "ok":
        return this.#decided(reply.reservation, reply.effects);
      case "missing":
        return { error: reservationUnknown(reservationId) };
      case "reused":
        return { error: idReused("return_id", returnId) };
      case "ended":
        return { error: reservationEnded("return units of", reservationId, reply.state) };
      case "other":
        return { error: notInReservation(request.lines, reply.productId) };
      case "too_large":
        return { error: returnTooLarge(reply.productId, quantityOf(reply.productId), reply.left) };
      case "range":
        return { error: returnOutOfRange(reply.productId, quantityOf(reply.productId), reply.onHand) };
    }
  }

  /** Ends an attempt in these buckets: cancels its holds, or, if it was decided after all, brings them to what was decided. */
  *abandon(attempt: Attempt, buckets: readonly number[], actor?: string): Protocol<void> {
    const { reservationId, epoch, fingerprint } = attempt;
    const [reply] = yield* ask([{ ...this.#atHome("refuse", reservationId), epoch }] as const);
    if (reply.status === "decided" && reply.fingerprint === fingerprint) {
      yield* ask(
        this.#applies(reservationId, reply.effects).filter(({ bucket }) => buckets.includes(bucket)),
      );
    } else {
      yield* ask(
        buckets.map(
          (bucket) => ({ step: "cancel", bucket, reservationId, epoch, fingerprint, actor }) as const,
        ),
      );
    }
  }

  /** Applies what was decided about a reservation. */
  *settle(reservationId: string, effects: readonly Effect[]): Protocol<void> {
    const newest = effects.at(-1);
    if (newest !== undefined) {
      yield* ask(this.#applies(reservationId, effects));
      yield* ask([{ ...this.#atHome("settle", reservationId), revision: newest.revision }] as const);
    }
  }

  /** As `settle`, for a reservation of which only the ID is known. */
  *settleOwed(reservationId: string): Protocol<void> {
    const [reply] = yield* ask([this.#atHome("read", reservationId)] as const);
    if (reply.status === "ok") {
      yield* this.settle(reservationId, reply.effects);
    }
  }

  #decided(reservation: Reservation, effects: readonly Effect[]): Outcome {
    return effects.length === 0
      ? { reservation }
      : { reservation, followUp: this.settle(reservation.reservationId, effects) };
  }

  /** Refuses the epoch of an attempt that another one has superseded, so that a later one may follow. */
  *#giveUp({ reservationId, epoch }: Attempt): Protocol<void> {
    yield* ask([{ ...this.#atHome("refuse", reservationId), epoch }] as const);
  }

  #atHome<Name extends string>(step: Name, reservationId: string): Step<Name> {
    return { step, bucket: this.#bucketOf(reservationId), reservationId };
  }

  #holds(
    attempt: Attempt,
    lines: readonly Line[],
    effects: readonly Effect[],
    actor: string | undefined,
  ): Hold[] {
    return this.#bucketsOf(lines).map((bucket) => ({
      step: "hold",
      bucket,
      ...attempt,
      lines: lines.filter(({ productId }) => this.#bucketOf(productId) === bucket),
      effects: this.#effectsIn(bucket, effects),
      actor,
    }));
  }

  #applies(reservationId: string, effects: readonly Effect[]): Apply[] {
    return this.#bucketsOf(effects.flatMap(({ targets }) => targets)).map((bucket) => ({
      step: "apply",
      bucket,
      reservationId,
      effects: this.#effectsIn(bucket, effects),
    }));
  }

  #effectsIn(bucket: number, effects: readonly Effect[]): Effect[] {
    return effects.map((effect) => ({
      ...effect,
      targets: effect.targets.filter(({ productId }) => this.#bucketOf(productId) === bucket),
    }));
  }

  #bucketsOf(lines: readonly { readonly productId: string }[]): number[] {
    return [...new Set(lines.map(({ productId }) => this.#bucketOf(productId)))];
  }
}

function* ask<const Messages extends readonly Message[]>(
  messages: Messages,
): Protocol<{ readonly [Index in keyof Messages]: ReplyTo<Messages[Index]> }> {
  return (messages.length === 0 ? [] : yield messages) as {
    readonly [Index in keyof Messages]: ReplyTo<Messages[Index]>;
  };
}

function isSuperseded(held: readonly HoldReply[]): boolean {
  return held.some(({ status }) => status === "superseded");
}

/** The error for the lines that could not be held, or `undefined` if all are held. */
function refusalOf(held: readonly HoldReply[], lines: readonly Line[]): InventoryError | undefined {
  const unknown = held.flatMap((reply) => (reply.status === "short" ? reply.unknown : []));
  const missing = lines.find(({ productId }) => unknown.includes(productId));
  const shortage = shortageOf(held, lines);
  if (missing !== undefined) {
    return productUnknown(missing.productId);
  }
  return shortage.length === 0 ? undefined : stockShort(shortage);
}

/** The short lines of all buckets, in the order of the request. Of an unknown or deleted product, nothing is available. */
function shortageOf(held: readonly HoldReply[], lines: readonly Line[]) {
  const short = held.flatMap((reply) => (reply.status === "short" ? [reply] : []));
  return lines.flatMap(({ productId, quantity }) =>
    short.flatMap(({ unknown, shortage }) => [
      ...shortage.filter((line) => line.productId === productId),
      ...(unknown.includes(productId) ? [{ productId, requested: quantity, available: 0 }] : []),
    ]),
  );
}

function isContended(reservationId: string, attempts: number): InventoryError {
  return new InventoryError(
    "OVERLOADED",
    `${attempts} attempts for reservation ${reservationId} were superseded by other calls with its ID; try again shortly`,
  );
}
