import { WatchStockResponseSchema } from "../../gen/inventory/v1/stock_pb.ts";
import type { WatchUpdate } from "../live/watch/watch-message.ts";
import { Frame } from "../rpc/fast-path/frame.ts";
import { ResponseEncoder } from "../rpc/fast-path/response-encoder.ts";
import type { FrameEncoder } from "../rpc/fast-path/stream-call.ts";
import { toWatchResponse } from "./watch-stock.ts";

/** Encodes the updates of watches. An update that several watchers share is encoded once, and so is each product state. */
export class WatchFrames implements FrameEncoder<WatchUpdate> {
  readonly #encoder = new ResponseEncoder();
  readonly #binary = new WeakMap<WatchUpdate, Frame>();
  readonly #json = new WeakMap<WatchUpdate, Frame>();

  encode(update: WatchUpdate, isJson: boolean): Frame {
    const frames = isJson ? this.#json : this.#binary;
    let frame = frames.get(update);
    if (frame === undefined) {
      const message = toWatchResponse(update);
      frame = new Frame(
        isJson
          ? Buffer.from(this.#encoder.json(WatchStockResponseSchema, message))
          : this.#encoder.binary(WatchStockResponseSchema, message),
      );
      frames.set(update, frame);
    }
    return frame;
  }
}
