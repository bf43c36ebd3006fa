import { z } from "zod";
import type { Line } from "../../inventory/reservation.ts";
import type { Apply, Effect, Hold, Message, Reply, ReplyTo } from "../../inventory/sharded/messages.ts";
import type { Keys } from "../keys.ts";
import type { Mutation } from "../mutations/mutation.ts";
import { unexpectedStatus } from "../mutations/mutations.ts";
import type { ReplyReader } from "../reply.ts";
import { decodeReservation, decodeShortage, decodeState } from "../reservation-record.ts";

// Encodes the steps of the protocol as operations of scripts/holds.lua and scripts/decisions.lua, and decodes their replies.

const EffectRecord = z.object({
  revision: z.int().min(0),
  epoch: z.int().min(1),
  cause: z.enum(["reserved", "committed", "released", "expired", "returned"]),
  reference: z.string(),
  actor: z.string(),
  targets: z.array(z.tuple([z.string(), z.int(), z.int()])),
});

const Effects = z.array(EffectRecord);

/** What the record of a reservation has besides that of one primary. */
const Decision = z.object({ print: z.string().optional(), effects: Effects.default([]) });

/** The operation that runs a step. */
export function mutationOf(message: Message, keys: Keys): Mutation {
  const { step, bucket, reservationId } = message;
  const record = keys.reservation(reservationId);
  const [deadlines, owed] = [keys.deadlines(bucket), keys.owed(bucket)];
  const operation = (name: string, names: readonly string[], ...args: (string | number)[]): Mutation => ({
    name,
    keys: names,
    args,
    products: 1,
    isIdempotent: true,
    actor: "actor" in message ? message.actor : undefined,
  });
  switch (step) {
    case "hold":
    case "apply":
      return onProducts(message, keys);
    case "cancel":
      return operation(
        "cancel_hold",
        holdKeys(keys, bucket, reservationId),
        reservationId,
        message.epoch,
        message.fingerprint,
      );
    case "read":
      return operation("read_reservation", [record]);
    case "decide":
      return operation(
        "decide",
        [record, deadlines],
        reservationId,
        message.epoch,
        message.fingerprint,
        message.ttlMs,
        ...message.lines.flatMap(({ productId, quantity }) => [
          productId,
          keys.bucketOf(productId),
          quantity,
        ]),
      );
    case "refuse":
      return operation("refuse", [record], message.epoch, reservationId);
    case "commit":
      return operation(
        "commit",
        [record, deadlines, owed],
        reservationId,
        message.strict ? "strict" : "",
        ...pairs(message.lines),
      );
    case "revive":
      return operation(
        "revive",
        [record, deadlines, owed],
        reservationId,
        message.epoch,
        message.fingerprint,
        ...pairs(message.lines),
      );
    case "release":
      return operation("release", [record, deadlines, owed], reservationId);
    case "extend":
      // Nothing tells a repeated extension from a new one, and it would be refused after a release in between.
      return {
        ...operation("extend", [record, deadlines], reservationId, message.ttlMs),
        isIdempotent: false,
      };
    case "return":
      return operation(
        "return",
        [record, owed, keys.operation("return", reservationId, message.returnId)],
        reservationId,
        message.returnId,
        message.fingerprint,
        ...message.lines.flatMap(({ productId, quantity, onHand = 0 }) => [productId, quantity, onHand]),
      );
    case "settle":
      return operation("settle", [record, owed], reservationId, message.revision);
  }
}

/** A step on products: their keys follow those of the hold, and their IDs the other arguments. */
function onProducts(message: Hold | Apply, keys: Keys): Mutation {
  const { bucket, reservationId, effects } = message;
  const lines = message.step === "hold" ? message.lines : [];
  const productIds = [
    ...new Set([...lines, ...effects.flatMap(({ targets }) => targets)].map(({ productId }) => productId)),
  ];
  const args =
    message.step === "hold"
      ? [
          reservationId,
          message.epoch,
          message.fingerprint,
          JSON.stringify(lines.map(({ productId, quantity }) => [productId, quantity])),
        ]
      : [reservationId];
  return {
    name: message.step === "hold" ? "hold" : "apply_effects",
    keys: [
      ...holdKeys(keys, bucket, reservationId),
      ...productIds.flatMap((productId) => keys.recordKeys(productId)),
    ],
    args: [...args, encodeEffects(effects), JSON.stringify(productIds)],
    products: productIds.length,
    isIdempotent: true,
    actor: message.step === "hold" ? message.actor : undefined,
  };
}

function holdKeys(keys: Keys, bucket: number, reservationId: string): string[] {
  return [keys.hold(bucket, reservationId), keys.undecided(bucket)];
}

/** Decodes the reply to a step. */
export function replyTo(message: Message, reply: ReplyReader): Reply {
  const { reservationId } = message;
  const status = reply.text();
  switch (status) {
    case "ok":
      return message.step === "hold" ||
        message.step === "cancel" ||
        message.step === "apply" ||
        message.step === "settle"
        ? { status }
        : decodeDecided(reservationId, reply.text());
    case "superseded":
    case "missing":
    case "reused":
    case "released_before":
      return { status };
    case "absent":
    case "refused":
      return { status, nextEpoch: reply.integer() };
    case "short": {
      const unknown = z.preprocess(emptyObjectAsList, z.array(z.string())).parse(JSON.parse(reply.text()));
      return { status, unknown, shortage: decodeShortage(reply) };
    }
    case "decided":
      return {
        status,
        fingerprint: reply.text(),
        effects: Effects.parse(JSON.parse(reply.text())).map(decodeEffect),
      };
    case "ended":
      return { status, state: decodeState(reply.text()) };
    case "expired":
      return decodeExpired(reply);
    case "other":
      return { status, productId: reply.text() };
    case "too_large":
      if (message.step === "commit") {
        const { productId = "" } = message.lines[reply.integer()] ?? {};
        return { status, productId, held: reply.integer() };
      }
      return { status, productId: reply.text(), left: reply.integer() };
    case "range":
      return { status, productId: reply.text(), onHand: reply.integer() };
    default:
      throw unexpectedStatus(status);
  }
}

/** Decodes the record of a reservation that was decided. */
export function decodeDecided(
  reservationId: string,
  text: string,
): ReplyTo<Message & { step: "read" }> & { status: "ok" } {
  const { print, effects } = Decision.parse(JSON.parse(text));
  return {
    status: "ok",
    reservation: decodeReservation(reservationId, text),
    fingerprint: print,
    effects: effects.map(decodeEffect),
  };
}

function decodeExpired(reply: ReplyReader): Reply {
  const nextEpoch = reply.integer();
  const { effects } = Decision.parse(JSON.parse(reply.text()));
  const sold: Line[] = [];
  for (let productId = reply.optionalText(); productId !== undefined; productId = reply.optionalText()) {
    sold.push({ productId, quantity: reply.integer() });
  }
  return { status: "expired", nextEpoch, sold, effects: effects.map(decodeEffect) };
}

function decodeEffect({ reference, actor, targets, ...rest }: z.infer<typeof EffectRecord>): Effect {
  return {
    ...rest,
    referenceId: reference,
    actor: actor === "" ? undefined : actor,
    targets: targets.map(([productId, held, sold]) => ({ productId, held, sold })),
  };
}

function encodeEffects(effects: readonly Effect[]): string {
  return JSON.stringify(
    effects.map(({ referenceId, actor = "", targets, ...rest }) => ({
      ...rest,
      reference: referenceId,
      actor,
      targets: targets.map(({ productId, held, sold }) => [productId, held, sold]),
    })),
  );
}

/** Lua writes an empty list as an empty object. */
function emptyObjectAsList(value: unknown): unknown {
  return Array.isArray(value) || Object.keys(Object(value)).length > 0 ? value : [];
}

function pairs(lines: readonly Line[]): (string | number)[] {
  return lines.flatMap(({ productId, quantity }) => [productId, quantity]);
}
