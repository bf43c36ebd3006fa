import { create, toBinary } from "@bufbuild/protobuf";
import { durationFromMs } from "@bufbuild/protobuf/wkt";
import { WatchStockRequestSchema } from "../../../gen/inventory/v1/stock_pb.ts";
import { Envelopes } from "./envelopes.ts";
import { enveloped } from "./frames.ts";
import { Http1Watch } from "./http1-watch.ts";
import { Http2Connection } from "./http2-connection.ts";
import { newestVersion } from "./protobuf.ts";

const PATH = "/inventory.v1.StockService/WatchStock";
const WATCHES_PER_CONNECTION = 100;
/** Below the service's limit of 1,000 watches per address. */
const WATCHES_PER_ADDRESS = 900;
/** Connections that are opened concurrently. */
const OPENING_AT_ONCE = 500;

export interface CrowdOptions {
  readonly url: string;
  readonly protocol: "h1" | "h2";
  readonly productId: string;
  /** The minimum interval between messages that each watcher requests. */
  readonly minIntervalMs: number;
  /** Flow-control window of each watcher, which then stops reading. HTTP/2 only; no limit unless given. */
  readonly streamWindow?: number | undefined;
}

/** An awaited version. */
interface Awaited {
  readonly version: number;
  /** Number of watchers that have not received it. */
  missing: number;
  /** When the other watchers received it, ms of `performance.now()`. */
  readonly times: number[];
  readonly all: PromiseWithResolvers<void>;
}

/** Many watchers of one product, which record when they received each version. */
export class Crowd {
  readonly #options: CrowdOptions;
  readonly #request: Buffer;
  readonly #versions: number[] = [];
  readonly #awaited = new Set<Awaited>();
  readonly #closers: (() => void)[] = [];
  readonly #openers: (() => void)[] = [];
  #connection: { readonly http2: Http2Connection; readonly head: Buffer; streams: number } | undefined;
  #begun = 0;
  #onBegun: () => void = () => {};
  #failure = Promise.withResolvers<never>();

  constructor(options: CrowdOptions) {
    this.#options = options;
    this.#request = enveloped(
      toBinary(
        WatchStockRequestSchema,
        create(WatchStockRequestSchema, {
          productIds: [options.productId],
          minInterval: durationFromMs(options.minIntervalMs),
        }),
      ),
    );
    this.#failure.promise.catch(() => {});
  }

  get protocol(): CrowdOptions["protocol"] {
    return this.#options.protocol;
  }

  get size(): number {
    return this.#versions.length;
  }

  /** The version of the watcher that is furthest behind. */
  get leastVersion(): number {
    return this.#versions.reduce((least, version) => Math.min(least, version), Number.POSITIVE_INFINITY);
  }

  /** Opens further watchers. Resolves when each has its snapshot. */
  async open(count: number): Promise<void> {
    const target = this.size + count;
    while (this.size < target) {
      const begin = Math.min(OPENING_AT_ONCE, target - this.size);
      const expected = this.size + begin;
      const all = Promise.withResolvers<void>();
      this.#onBegun = () => this.#begun === expected && all.resolve();
      for (let n = 0; n < begin; n++) {
        this.#openOne();
      }
      await Promise.race([all.promise, this.#failure.promise]);
    }
  }

  /** Resolves when all have this version or a later one, with the times at which the late ones received it. */
  async arrived(version: number): Promise<readonly number[]> {
    const missing = this.#versions.filter((had) => had < version).length;
    const awaited = { version, missing, times: [], all: Promise.withResolvers<void>() };
    if (missing > 0) {
      this.#awaited.add(awaited);
      await Promise.race([awaited.all.promise, this.#failure.promise]).finally(() =>
        this.#awaited.delete(awaited),
      );
    }
    return awaited.times;
  }

  /** Lets watchers with a small window resume reading. */
  readOn(): void {
    for (const open of this.#openers) {
      open();
    }
  }

  close(): void {
    for (const close of this.#closers) {
      close();
    }
  }

  #openOne(): void {
    const index = this.#versions.length;
    this.#versions.push(0);
    const envelopes = new Envelopes((bytes, start, end) =>
      this.#onMessage(index, newestVersion(bytes, start, end)),
    );
    const onData = (bytes: Buffer, start: number, end: number): void => envelopes.push(bytes, start, end);
    const { url, protocol } = this.#options;
    const localAddress = addressOf(Math.floor(index / WATCHES_PER_ADDRESS));
    if (protocol === "h1") {
      const watch = new Http1Watch({
        url,
        path: PATH,
        body: this.#request,
        localAddress,
        onData,
        onClose: this.#failure.reject,
      });
      this.#closers.push(() => watch.close());
    } else {
      const { http2, head } = this.#connectionFor(localAddress);
      const stream = http2.request(head, this.#request, {
        onData,
        onEnd: (code) => this.#failure.reject(new Error(`A watch ended with HTTP/2 code ${code}`)),
      });
      this.#openers.push(() => http2.openWindow(stream));
    }
  }

  #connectionFor(localAddress: string): { readonly http2: Http2Connection; readonly head: Buffer } {
    if (this.#connection === undefined || this.#connection.streams === WATCHES_PER_CONNECTION) {
      const { url, streamWindow } = this.#options;
      const http2 = new Http2Connection({ url, localAddress, streamWindow, onClose: this.#failure.reject });
      this.#connection = { http2, head: http2.grpcHead(PATH), streams: 0 };
      this.#closers.push(() => http2.close());
    }
    this.#connection.streams += 1;
    return this.#connection;
  }

  #onMessage(index: number, version: number): void {
    const before = this.#versions[index] ?? 0;
    if (version <= before) {
      return;
    }
    this.#versions[index] = version;
    if (before === 0) {
      this.#begun += 1;
      this.#onBegun();
      return;
    }
    // A message includes the versions that were skipped before it.
    for (const awaited of this.#awaited) {
      if (before < awaited.version && awaited.version <= version) {
        awaited.times.push(performance.now());
        awaited.missing -= 1;
        if (awaited.missing === 0) {
          awaited.all.resolve();
        }
      }
    }
  }
}

/** 127.0.0.1, 127.0.0.2, …: on Linux all of them are this machine. */
function addressOf(n: number): string {
  return `127.0.0.${1 + n}`;
}
