import { isMessage, type Message } from "@bufbuild/protobuf";
import { StockService, WatchStockRequestSchema } from "../../gen/inventory/v1/stock_pb.ts";
import type { Mirror } from "../live/mirror.ts";
import type { Hub } from "../live/watch/hub.ts";
import type { Watch, WatchSink } from "../live/watch/watch.ts";
import type { WatchUpdate } from "../live/watch/watch-message.ts";
import type { MessageSource, StreamCall } from "../rpc/fast-path/stream-call.ts";
import type { StreamMethod } from "../rpc/fast-path/stream-fast-path.ts";
import { WatchFrames } from "./watch-frames.ts";
import { openWatch } from "./watch-stock.ts";

/** WatchStock on the fast path. An update for many watchers is encoded once. The watch is the same on both paths. */
export function watchStockMethod(live: { readonly mirror: Mirror; readonly hub: Hub }): StreamMethod {
  const frames = new WatchFrames();
  return {
    desc: StockService.method.watchStock,
    open(request, call) {
      assertWatchRequest(request);
      return new WatchSource(openWatch(live, request, call.call.caller), frames, call);
    },
  };
}

function assertWatchRequest(request: Message): asserts request is Parameters<typeof openWatch>[1] {
  if (!isMessage(request, WatchStockRequestSchema)) {
    throw new TypeError(`WatchStock was called with a ${request.$typeName}`);
  }
}

/** Writes the updates of a watch to its call. */
class WatchSource implements MessageSource, WatchSink {
  readonly #watch: Watch;
  readonly #frames: WatchFrames;
  readonly #call: StreamCall;

  constructor(watch: Watch, frames: WatchFrames, call: StreamCall) {
    this.#watch = watch;
    this.#frames = frames;
    this.#call = call;
  }

  start(): void {
    this.#watch.start(this);
  }

  resume(): void {
    this.#watch.resume();
  }

  close(): void {
    this.#watch.close();
  }

  get isReady(): boolean {
    return this.#call.isReady;
  }

  write(update: WatchUpdate): void {
    this.#call.write(update, this.#frames);
  }

  end(): void {
    this.#call.end();
  }
}
