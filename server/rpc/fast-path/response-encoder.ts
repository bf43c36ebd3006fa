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

/** Messages that many responses share: all readers of one product state get the same object (`api/messages.ts`). */
const SHARED: ReadonlySet<DescMessage> = new Set([StockSchema, InventoryResponseSchema]);

/** A field that holds shared messages. */
interface SharedField {
  readonly desc: DescMessage;
  readonly localName: string;
  readonly jsonName: string;
  readonly isList: boolean;
  /** The encoded field number and wire type. */
  readonly tag: Uint8Array;
}

/** Where a message type has shared messages. */
interface Layout {
  readonly fields: readonly SharedField[];
  /** Whether it has other fields. */
  readonly hasRest: boolean;
}

/**
 * Encodes responses. A shared message is encoded once, and its bytes are cached for the lifetime of the message. A response
 * is concatenated from them: a field is a tag, a length and a message, and a repeated field is a sequence of those
 * (https://protobuf.dev/programming-guides/encoding/#structure). protobuf-es encodes everything else.
 */
export class ResponseEncoder {
  readonly #json: Partial<JsonWriteOptions>;
  readonly #layouts = new Map<DescMessage, Layout>();
  readonly #bodies = new WeakMap<Message, Uint8Array>();
  /** Length-prefixed. */
  readonly #fields = new WeakMap<Message, Uint8Array>();
  readonly #texts = new WeakMap<Message, string>();

  constructor(json: Partial<JsonWriteOptions> = {}) {
    this.#json = json;
  }

  /** The message after `headroom` bytes, which the caller must fill. Throws where a value is out of its type's range. */
  binary(desc: DescMessage, message: Message, headroom = 0): Buffer {
    if (SHARED.has(desc)) {
      const body = this.#bodyOf(desc, message);
      const encoded = Buffer.allocUnsafe(headroom + body.length);
      encoded.set(body, headroom);
      return encoded;
    }
    const { fields, hasRest } = this.#layoutOf(desc);
    const parts: Uint8Array[] = [];
    for (const { desc: shared, localName, tag } of fields) {
      for (const each of sharedMessagesOf(message, localName)) {
        parts.push(tag, this.#fieldOf(shared, each));
      }
    }
    if (hasRest) {
      parts.push(toBinary(desc, withoutShared(desc, message, fields)));
    }
    const encoded = Buffer.allocUnsafe(parts.reduce((length, part) => length + part.length, headroom));
    let offset = headroom;
    for (const part of parts) {
      encoded.set(part, offset);
      offset += part.length;
    }
    return encoded;
  }

  /** The message as JSON. Throws where a value is out of its type's range. */
  json(desc: DescMessage, message: Message): string {
    if (SHARED.has(desc)) {
      return this.#textOf(desc, message);
    }
    const { fields, hasRest } = this.#layoutOf(desc);
    const rest = hasRest ? toJsonString(desc, withoutShared(desc, message, fields), this.#json) : "{}";
    const members: string[] = [];
    for (const { desc: shared, localName, jsonName, isList } of fields) {
      const texts = sharedMessagesOf(message, localName).map((each) => this.#textOf(shared, each));
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
    return cached(this.#bodies, shared, () => toBinary(desc, shared));
  }

  #fieldOf(desc: DescMessage, shared: Message): Uint8Array {
    return cached(this.#fields, shared, () => new BinaryWriter().bytes(toBinary(desc, shared)).finish());
  }

  #textOf(desc: DescMessage, shared: Message): string {
    return cached(this.#texts, shared, () => toJsonString(desc, shared, this.#json));
  }

  #layoutOf(desc: DescMessage): Layout {
    let layout = this.#layouts.get(desc);
    if (layout === undefined) {
      const fields = desc.fields.flatMap(toSharedField);
      layout = { fields, hasRest: fields.length < desc.fields.length };
      this.#layouts.set(desc, layout);
    }
    return layout;
  }
}

function cached<To>(cache: WeakMap<Message, To>, shared: Message, encode: () => To): To {
  let encoded = cache.get(shared);
  if (encoded === undefined) {
    encoded = encode();
    cache.set(shared, encoded);
  }
  return encoded;
}

/** Empty where the field does not hold shared messages. */
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

/** The messages in a singular or repeated field. */
function sharedMessagesOf(message: Message, localName: string): readonly Message[] {
  const value: unknown = Reflect.get(message, localName);
  if (Array.isArray(value)) {
    return value;
  }
  return isMessage(value) ? [value] : [];
}

function withoutShared(desc: DescMessage, message: Message, fields: readonly SharedField[]): Message {
  if (fields.length === 0) {
    return message;
  }
  const rest = Object.assign(create(desc), message);
  for (const { localName, isList } of fields) {
    Reflect.set(rest, localName, isList ? [] : undefined);
  }
  return rest;
}
