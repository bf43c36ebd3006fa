import { BinaryReader } from "@bufbuild/protobuf/wire";
import type { WatchedStock, WatchMessage } from "../live/watch-message.ts";

// Reads and writes the messages of WatchStock by field. The generated code would be larger than the element.

/** WatchStockRequest: `repeated string product_ids = 1`. */
export function writeWatchRequest(productIds: readonly string[]): Uint8Array {
  const text = new TextEncoder();
  const bytes: number[] = [];
  for (const productId of productIds) {
    const id = text.encode(productId);
    bytes.push(0x0a);
    writeVarint(bytes, id.length);
    bytes.push(...id);
  }
  return Uint8Array.from(bytes);
}

/** WatchStockResponse, only the fields that the element needs. */
export function readWatchResponse(bytes: Uint8Array): WatchMessage<WatchedStock> {
  const stocks: WatchedStock[] = [];
  const removed: string[] = [];
  let isSnapshot = false;
  let isStale = false;
  let reconnectAfterMs: number | undefined;
  readFields(bytes, (field, reader) => {
    if (field === 1) stocks.push(readStock(reader.bytes()));
    else if (field === 2) removed.push(reader.string());
    else if (field === 3) isSnapshot = reader.bool();
    else if (field === 6) reconnectAfterMs = readTimeMs(reader.bytes());
    else if (field === 7) isStale = reader.bool();
    else return false;
    return true;
  });
  return { stocks, removed, isSnapshot, isStale, reconnectAfterMs, serverTimeMs: 0 };
}

function readStock(bytes: Uint8Array): WatchedStock {
  const stock = { productId: "", available: 0, version: 0, updateTimeMs: 0 };
  readFields(bytes, (field, reader) => {
    if (field === 1) stock.productId = reader.string();
    else if (field === 2) stock.available = reader.int32();
    else if (field === 3) stock.version = Number(reader.uint64());
    else if (field === 4) stock.updateTimeMs = readTimeMs(reader.bytes());
    else return false;
    return true;
  });
  return stock;
}

/** A Timestamp or a Duration: `seconds = 1`, `nanos = 2`. */
function readTimeMs(bytes: Uint8Array): number {
  let ms = 0;
  readFields(bytes, (field, reader) => {
    if (field === 1) ms += Number(reader.int64()) * 1e3;
    else if (field === 2) ms += reader.int32() / 1e6;
    else return false;
    return true;
  });
  return ms;
}

/** Calls `read` for every field. It returns false for a field to skip. */
function readFields(bytes: Uint8Array, read: (field: number, reader: BinaryReader) => boolean): void {
  const reader = new BinaryReader(bytes);
  while (reader.pos < reader.len) {
    const [field, type] = reader.tag();
    if (!read(field, reader)) reader.skip(type, field);
  }
}

function writeVarint(bytes: number[], value: number): void {
  let rest = value;
  for (; rest > 127; rest >>>= 7) bytes.push((rest & 127) | 128);
  bytes.push(rest);
}
