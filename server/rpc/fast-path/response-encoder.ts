import {
  create,
  type DescField,
  type DescMessage,
  isMessage,
  type JsonWriteOptions,
  type Message,
  toBinary,
  toJsonString,
} from "@bufbuild/protobuf";
import { BinaryWriter, WireType } from "@bufbuild/protobuf/wire";
import { StockSchema } from "../../../gen/inventory/v1/stock_pb.ts";
import { InventoryResponseSchema } from "../../../gen/inventory_pb.ts";

/** What many answers have in common: of one state of a product all readers get the same message (`messages.ts`). */
const SHARED: ReadonlySet<DescMessage> = new Set([StockSchema, InventoryResponseSchema]);

/** A field of an answer that holds shared messages. */
interface SharedField {
  readonly desc: DescMessage;
  readonly localName: string;
  readonly jsonName: string;
  readonly isList: boolean;
  /** Number and wire type, as they stand before each message. */
  readonly tag: Uint8Array;
}

/** Where an answer of some type has shared messages. */
interface Plan {
  readonly fields: readonly SharedField[];
  /** Whether it has anything else. */
  readonly hasRest: boolean;
}

/**
 * Encodes answers. A shared message is encoded once, and what came out is kept for as long as the message is; an answer is put
 * together of those, since a field is its tag and its length before its message, and a repeated one just more of these
 * (https://protobuf.dev/programming-guides/encoding/#structure). All else is protobuf-es's.
 */
export class ResponseEncoder {
  readonly #json: Partial<JsonWriteOptions>;
  readonly #plans = new Map<DescMessage, Plan>();
  readonly #bodies = new WeakMap<Message, Uint8Array>();
  /** The same with their lengths before them. */
  readonly #fields = new WeakMap<Message, Uint8Array>();
  readonly #texts = new WeakMap<Message, string>();

  constructor(json: Partial<JsonWriteOptions> = {}) {
    this.#json = json;
  }

  /** The message after `room` bytes, which are the caller's to fill. Throws where a value does not fit its type. */
  binary(desc: DescMessage, message: Message, room = 0): Buffer {
    if (SHARED.has(desc)) {
      const body = this.#bodyOf(desc, message);
      const encoded = Buffer.allocUnsafe(room + body.length);
      encoded.set(body, room);
      return encoded;
    }
    const { fields, hasRest } = this.#planOf(desc);
    const rest = hasRest ? toBinary(desc, restOf(desc, message, fields)) : undefined;
    let length = room + (rest?.length ?? 0);
    for (const { desc: shared, localName, tag } of fields) {
      for (const each of sharedIn(message, localName)) {
        length += tag.length + this.#fieldOf(shared, each).length;
      }
    }
    const encoded = Buffer.allocUnsafe(length);
    let place = room;
    const put = (bytes: Uint8Array): void => {
      encoded.set(bytes, place);
      place += bytes.length;
    };
    for (const { desc: shared, localName, tag } of fields) {
      for (const each of sharedIn(message, localName)) {
        put(tag);
        put(this.#fieldOf(shared, each));
      }
    }
    if (rest !== undefined) {
      put(rest);
    }
    return encoded;
  }

  /** The message as JSON text. Throws where a value does not fit its type. */
  json(desc: DescMessage, message: Message): string {
    if (SHARED.has(desc)) {
      return this.#textOf(desc, message);
    }
    const { fields, hasRest } = this.#planOf(desc);
    const rest = hasRest ? toJsonString(desc, restOf(desc, message, fields), this.#json) : "{}";
    const members: string[] = [];
    for (const { desc: shared, localName, jsonName, isList } of fields) {
      const texts = sharedIn(message, localName).map((each) => this.#textOf(shared, each));
      if (texts.length > 0) {
        members.push(`"${jsonName}":${isList ? `[${texts.join(",")}]` : texts[0]}`);
      }
    }
    if (rest !== "{}") {
      members.push(rest.slice(1, -1));
    }
    return `{${members.join(",")}}`;
  }

  #bodyOf(desc: DescMessage, shared: Message): Uint8Array {
    return keptOrMade(this.#bodies, shared, () => toBinary(desc, shared));
  }

  #fieldOf(desc: DescMessage, shared: Message): Uint8Array {
    return keptOrMade(this.#fields, shared, () => new BinaryWriter().bytes(toBinary(desc, shared)).finish());
  }

  #textOf(desc: DescMessage, shared: Message): string {
    return keptOrMade(this.#texts, shared, () => toJsonString(desc, shared, this.#json));
  }

  #planOf(desc: DescMessage): Plan {
    let plan = this.#plans.get(desc);
    if (plan === undefined) {
      const fields = desc.fields.flatMap(toSharedField);
      plan = { fields, hasRest: fields.length < desc.fields.length };
      this.#plans.set(desc, plan);
    }
    return plan;
  }
}

function keptOrMade<To>(kept: WeakMap<Message, To>, shared: Message, make: () => To): To {
  let encoded = kept.get(shared);
  if (encoded === undefined) {
    encoded = make();
    kept.set(shared, encoded);
  }
  return encoded;
}

/** None where the field holds something else. */
function toSharedField({
  localName,
  jsonName,
  fieldKind,
  number,
  message: desc,
  oneof,
}: DescField): SharedField[] {
  const isList = fieldKind === "list";
  if (
    desc === undefined ||
    !SHARED.has(desc) ||
    !(isList || fieldKind === "message") ||
    oneof !== undefined
  ) {
    return [];
  }
  const tag = new BinaryWriter().tag(number, WireType.LengthDelimited).finish();
  return [{ desc, localName, jsonName, isList, tag }];
}

/** The shared messages in a field: none, one, or those of a list. */
function sharedIn(message: Message, localName: string): readonly Message[] {
  const value: unknown = Reflect.get(message, localName);
  if (Array.isArray(value)) {
    return value;
  }
  return isMessage(value) ? [value] : [];
}

function restOf(desc: DescMessage, message: Message, fields: readonly SharedField[]): Message {
  if (fields.length === 0) {
    return message;
  }
  const rest = Object.assign(create(desc), message);
  for (const { localName, isList } of fields) {
    Reflect.set(rest, localName, isList ? [] : undefined);
  }
  return rest;
}
