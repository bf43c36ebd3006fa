import { create, toBinary, toJsonString } from "@bufbuild/protobuf";
import { StockSchema, WatchStockResponseSchema } from "../../../gen/inventory/v1/stock_pb.ts";
import type { ProductState } from "../../inventory/feed.ts";
import type { WatchUpdate } from "../../live/watch-message.ts";
import { toStock } from "../messages.ts";
import { withoutStocks } from "../watch-stock.ts";
import { PREFIX_BYTES } from "./layout.ts";

/** Products whose encoded state is kept, of each kind: those that changed last. Some 200 bytes each. */
const KEPT_STOCKS_MAX = 4_096;

/** A message as it goes out, for every protocol and any number of readers. */
export class Frame {
  /** In its envelope, as a chunk of HTTP/1.1. */
  readonly chunk: Buffer;
  readonly #start: number;
  readonly #end: number;

  /** `length` is that of the message, which `write` puts at a place in a buffer. */
  constructor(length: number, write: (target: Buffer, at: number) => void) {
    const size = `${(PREFIX_BYTES + length).toString(16)}\r\n`;
    this.#start = size.length;
    this.#end = size.length + PREFIX_BYTES + length;
    // Not of the pool, which a reader that stops would hold with it.
    this.chunk = Buffer.allocUnsafeSlow(this.#end + 2);
    this.chunk.write(size, "latin1");
    this.chunk[this.#start] = 0;
    this.chunk.writeUInt32BE(length, this.#start + 1);
    write(this.chunk, this.#start + PREFIX_BYTES);
    this.chunk.write("\r\n", this.#end, "latin1");
  }

  /** In its envelope alone. */
  get envelope(): Buffer {
    return this.chunk.subarray(this.#start, this.#end);
  }
}

/**
 * Messages of watches, encoded. One that several watchers share is encoded once. Of others, the state of
 * each product is, since a repeated field is the concatenation of its encodings.
 */
export class WatchFrames {
  readonly #binary = new WeakMap<WatchUpdate, Frame>();
  readonly #json = new WeakMap<WatchUpdate, Frame>();
  readonly #binaryStocks = new EncodedStocks(encodeBinary);
  readonly #jsonStocks = new EncodedStocks(encodeJson);

  of(update: WatchUpdate, isJson: boolean): Frame {
    const frames = isJson ? this.#json : this.#binary;
    let frame = frames.get(update);
    if (frame === undefined) {
      frame = isJson ? this.#layOutJson(update) : this.#layOutBinary(update);
      frames.set(update, frame);
    }
    return frame;
  }

  #layOutBinary(update: WatchUpdate): Frame {
    const parts = this.#binaryStocks.of(update);
    parts.push(toBinary(WatchStockResponseSchema, withoutStocks(update)));
    const length = parts.reduce((sum, part) => sum + part.length, 0);
    return new Frame(length, (target, at) => {
      let place = at;
      for (const part of parts) {
        target.set(part, place);
        place += part.length;
      }
    });
  }

  #layOutJson(update: WatchUpdate): Frame {
    const stocks = this.#jsonStocks.of(update).join(",");
    const rest = toJsonString(WatchStockResponseSchema, withoutStocks(update));
    // The rest is never empty: it has the time.
    const text = stocks === "" ? rest : `{"stocks":[${stocks}],${rest.slice(1)}`;
    return new Frame(Buffer.byteLength(text), (target, at) => target.write(text, at));
  }
}

/** Products' states as they stand in a message. Kept without their details, which seldom change and may be long. */
class EncodedStocks<Encoded> {
  readonly #encode: (state: ProductState) => Encoded;
  readonly #kept = new Map<string, { readonly state: ProductState; readonly encoded: Encoded }>();

  constructor(encode: (state: ProductState) => Encoded) {
    this.#encode = encode;
  }

  of({ stocks, withDetails }: WatchUpdate): Encoded[] {
    return stocks.map((state) =>
      withDetails.has(state.productId) ? this.#encode(state) : this.#withoutDetails(state),
    );
  }

  #withoutDetails(state: ProductState): Encoded {
    const { productId } = state;
    const kept = this.#kept.get(productId);
    if (kept !== undefined && isSame(kept.state, state)) {
      return kept.encoded;
    }
    const stock = { ...state, details: undefined };
    const encoded = this.#encode(stock);
    this.#kept.delete(productId);
    this.#kept.set(productId, { state: stock, encoded });
    if (this.#kept.size > KEPT_STOCKS_MAX) {
      const [oldest = ""] = this.#kept.keys();
      this.#kept.delete(oldest);
    }
    return encoded;
  }
}

/** The version does not tell alone: it may begin anew, with the data of another store. */
function isSame(a: ProductState, b: ProductState): boolean {
  return a.version === b.version && a.available === b.available && a.updateTimeMs === b.updateTimeMs;
}

/** The whole field, with its tag. */
function encodeBinary(state: ProductState): Uint8Array {
  return toBinary(WatchStockResponseSchema, create(WatchStockResponseSchema, { stocks: [toStock(state)] }));
}

function encodeJson(state: ProductState): string {
  return toJsonString(StockSchema, toStock(state));
}
