import { isUtf8 } from "node:buffer";
import {
  type DescMessage,
  type DescService,
  fromJson,
  fromJsonString,
  type JsonReadOptions,
  type JsonValue,
  type Message,
} from "@bufbuild/protobuf";
import { EmptySchema } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError } from "@connectrpc/connect";
import { ruleOf } from "../../access/policy.ts";
import { invalidInput } from "../../inventory/validation.ts";
import { toConnectError } from "../errors.ts";
import { checkMessage, JsonNumber } from "./json-fields.ts";

// JSON requests, read by the rules of ProtoJSON (https://protobuf.dev/programming-guides/json/) and not more loosely: see
// docs/decisions/0022-strict-json.md.

/** Whole numbers that a double holds as they are written. */
const PLAIN_INTEGER = /^-?\d{1,15}$/;
const DUPLICATE_KEY = /duplicate object key (".*")/s;
/** Occurs in any text with a number that is not a plain integer. */
const UNUSUAL_NUMBER = /\d[.eE]|\d{16}/;
const BYTE_ORDER_MARK = "\ufeff";

export interface JsonRules {
  readonly ignoreUnknownFields: boolean;
  /** For messages in `google.protobuf.Any`. */
  readonly registry?: JsonReadOptions["registry"];
}

/**
 * Unknown fields are ignored by public services, whose pages may be newer than this server, and refused by those that change
 * stock: there a misspelt field would change it otherwise than asked.
 */
export function jsonRulesOf({ typeName }: DescService, options: Partial<JsonReadOptions>): JsonRules {
  return {
    ignoreUnknownFields: options.ignoreUnknownFields ?? ruleOf(typeName) === "public",
    ...(options.registry && { registry: options.registry }),
  };
}

/** Reads a message. Throws INVALID_ARGUMENT; where fields are invalid, with a BadRequest that names each of them. */
export function readJson(desc: DescMessage, bytes: Uint8Array, rules: JsonRules): Message {
  return fromJson(desc, checkedJson(desc, bytes, rules), { ...rules, ignoreUnknownFields: true });
}

/** A decoder that Connect reads messages with: it returns JSON in which Connect finds nothing more to judge. */
export function jsonDecoder(desc: DescMessage, rules: JsonRules): { decode(bytes: Uint8Array): string } {
  return { decode: (bytes) => JSON.stringify(checkedJson(desc, bytes, rules)) };
}

function checkedJson(desc: DescMessage, bytes: Uint8Array, rules: JsonRules): JsonValue {
  const json = parse(textOf(bytes));
  if (json === null || typeof json !== "object" || Array.isArray(json)) {
    throw invalid(`The request is ${JSON.stringify(json)?.slice(0, 40)}; give a JSON object`);
  }
  const violations = checkMessage(desc, json as Record<string, unknown>, rules.ignoreUnknownFields);
  if (violations.length > 0) {
    throw toConnectError(invalidInput(violations));
  }
  return json as JsonValue;
}

function textOf(bytes: Uint8Array): string {
  if (!isUtf8(bytes)) {
    throw invalid("The request is not valid UTF-8");
  }
  const text = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("utf8");
  return text.startsWith(BYTE_ORDER_MARK) ? text.slice(1) : text;
}

/** A reviver, with the third argument of ECMAScript 2026. Numbers that a double may not hold as written become a `JsonNumber`. */
function keepNumberText(
  _key: string,
  value: unknown,
  { source = "" }: { readonly source?: string },
): unknown {
  return typeof value === "number" && !PLAIN_INTEGER.test(source) ? new JsonNumber(source) : value;
}

function parse(text: string): unknown {
  let json: unknown;
  try {
    // A reviver doubles the time.
    json = UNUSUAL_NUMBER.test(text)
      ? JSON.parse(text, keepNumberText as (key: string, value: unknown) => unknown)
      : JSON.parse(text);
  } catch (error) {
    throw invalid(`The request is not valid JSON: ${(error as Error).message}`);
  }
  // As many colons as keys: no object is nested, and no key is repeated.
  if (Object.keys(json ?? {}).length !== countColons(text)) {
    refuseDuplicateKeys(text);
  }
  return json;
}

function countColons(text: string): number {
  let count = 0;
  for (let at = text.indexOf(":"); at >= 0; at = text.indexOf(":", at + 1)) count += 1;
  return count;
}

/** Uses protobuf-es, which rejects duplicate keys at every level. JSON.parse would keep the last value. */
function refuseDuplicateKeys(text: string): void {
  try {
    fromJsonString(EmptySchema, text, { ignoreUnknownFields: true });
  } catch (error) {
    const key = DUPLICATE_KEY.exec((error as Error).message)?.[1];
    if (key !== undefined) {
      throw invalid(`The request has the key ${key} more than once in one object`);
    }
  }
}

function invalid(message: string): ConnectError {
  return new ConnectError(message, Code.InvalidArgument);
}
