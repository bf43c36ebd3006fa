import type { ChangeCause, StockChange } from "../../inventory/ledger.ts";
import type { DamagedRecords } from "../damaged-records.ts";
import { decodeChange } from "../reply.ts";
import type { StreamEntry } from "./stream-positions.ts";

/** The causes of Orders' calls: nearly all changes of a busy shop. They do not change details, which a later entry would not repeat. */
const SUPERSEDABLE: ReadonlySet<string> = new Set<ChangeCause>([
  "reserved",
  "committed",
  "released",
  "expired",
  "returned",
]);

/** The changes of one read. */
export interface NewestChanges {
  /** In the order of the stream. */
  readonly changes: readonly StockChange[];
  /** Number of changes that were left out, by cause. */
  readonly superseded: ReadonlyMap<ChangeCause, number>;
}

/**
 * Decodes the entries of one read of a stream. An entry of an Orders' call is left out if a later one has a newer state of
 * the product, because its decoding and its effect on the sorted lists take most of the time of a change.
 */
export function decodeNewest(
  stream: string,
  entries: readonly StreamEntry[],
  damagedRecords: DamagedRecords,
): NewestChanges {
  const changes: StockChange[] = [];
  const superseded = new Map<ChangeCause, number>();
  const newer = new Set<string>();
  for (let at = entries.length - 1; at >= 0; at--) {
    const entry = entries[at] as StreamEntry;
    const cause = supersededCause(entry[1][1] ?? "", newer);
    if (cause !== undefined) {
      superseded.set(cause, (superseded.get(cause) ?? 0) + 1);
      continue;
    }
    const change = damagedRecords.decode("stream", `${stream} ${entry[0]}`, () => decodeChange(entry));
    if (change !== undefined) {
      newer.add(change.ledger.productId);
      changes.push(change);
    }
  }
  return { changes: changes.reverse(), superseded };
}

/** The cause of a change if it can be left out. `newer`: the products of later changes. */
function supersededCause(text: string, newer: ReadonlySet<string>): ChangeCause | undefined {
  const cause = text.slice(0, text.indexOf(" "));
  if (newer.size === 0 || !SUPERSEDABLE.has(cause)) {
    return undefined;
  }
  const idAt = text.indexOf("\n") + 1;
  const idEnd = text.indexOf("\n", idAt);
  return newer.has(text.slice(idAt, idEnd)) ? (cause as ChangeCause) : undefined;
}
