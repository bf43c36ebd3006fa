import { z } from "zod";
import type { ChangeKey } from "../inventory/change-history.ts";

/** A reference record as scripts/operation-record.lua writes it: product and version of each change. */
const ReferenceRecord = z.preprocess(
  // Lua writes an empty list as an empty object.
  (list) => (Array.isArray(list) || Object.keys(Object(list)).length > 0 ? list : []),
  z.array(z.tuple([z.string(), z.int().min(1)])),
);

/** Throws if the text is not a record of the script. */
export function decodeReference(text: string): ChangeKey[] {
  return ReferenceRecord.parse(JSON.parse(text)).map(([productId, version]) => ({ productId, version }));
}

export function encodeReference(changes: readonly ChangeKey[]): string {
  return JSON.stringify(changes.map(({ productId, version }) => [productId, version]));
}
