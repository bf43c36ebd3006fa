import { setTimeout as pause } from "node:timers/promises";
import { durationFromMs } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError } from "@connectrpc/connect";
import type { Command } from "commander";
import { type WatchStockResponse, WatchStockResponseSchema } from "../../gen/inventory/v1/stock_pb.ts";
import { STOCK_COLUMNS, signed } from "../columns.ts";
import { defineCommand } from "../command.ts";
import { codeName } from "../errors.ts";
import { messageJson } from "../output/output.ts";
import { Table } from "../output/table.ts";
import { plural, printable } from "../output/text.ts";
import type { Session } from "../session.ts";
import { durationMs, timeText } from "../values.ts";

/** Delays before a lost watch is opened again, ms: the first, and the longest. */
const RECONNECT_MS_MIN = 500;
const RECONNECT_MS_MAX = 10_000;
/** Longest time without a message. The server sends a heartbeat about every 10 s. */
const SILENCE_MS_MAX = 30_000;
const MIN_INTERVAL_MS = 200;

/** What is known of a product that is watched. */
interface Known {
  readonly available: number;
  readonly version: bigint;
  readonly name: string;
}

export function addWatch(program: Command): void {
  defineCommand<[string[]]>(
    program,
    {
      usage: "watch",
      summary: "Follow changes of stock as they happen, until Ctrl-C",
      description: `Prints the stock of the products named, and then a line for each change. Without products, the changes of all.
Connects again when the connection is lost. With --json one WatchStockResponse a line, without heartbeats.
Needs no token.`,
      examples: ["npx inventory watch demo-01 demo-02", "npx inventory watch --json"],
    },
    (command) => command.argument("[products...]", "product IDs, up to 1,000; all if none is given"),
    async (session, _options, productIds) => {
      const view = new WatchView(session, productIds);
      for (let failures = 0; !session.signal.aborted; ) {
        let delayMs: number;
        try {
          const reconnectMs = await follow(session, productIds, async (message) => {
            failures = 0;
            await view.show(message);
          });
          delayMs = reconnectMs ?? RECONNECT_MS_MIN;
        } catch (thrown) {
          if (session.signal.aborted) break;
          const error = ConnectError.from(thrown);
          // The first connection fails at once, so that a wrong address is seen.
          if (!view.isConnected || !isLost(error)) throw thrown;
          failures += 1;
          delayMs = Math.min(RECONNECT_MS_MAX, RECONNECT_MS_MIN * 2 ** failures);
          session.output.warn(`${codeName(error.code)}: ${error.rawMessage}; connecting again`);
        }
        await pause(delayMs * (0.5 + Math.random() / 2), undefined, { signal: session.signal }).catch(
          () => undefined,
        );
      }
      return undefined;
    },
  );
}

/** A lost connection has the code UNKNOWN, INTERNAL or ABORTED, depending on how it was lost. */
function isLost({ code }: ConnectError): boolean {
  return ![Code.InvalidArgument, Code.Unauthenticated, Code.PermissionDenied, Code.Unimplemented].includes(
    code,
  );
}

/** Reads one watch to its end. Resolves with the delay that the server asks for before the next one. */
async function follow(
  session: Session,
  productIds: readonly string[],
  onMessage: (message: WatchStockResponse) => Promise<void>,
): Promise<number | undefined> {
  const silence = new AbortController();
  const timer = setTimeout(() => silence.abort(), SILENCE_MS_MAX);
  try {
    const watch = session.stock.watchStock(
      { productIds: [...productIds], minInterval: durationFromMs(MIN_INTERVAL_MS) },
      { signal: AbortSignal.any([session.signal, silence.signal]), timeoutMs: 0 },
    );
    for await (const message of watch) {
      timer.refresh();
      await onMessage(message);
      if (message.reconnectAfter !== undefined) return durationMs(message.reconnectAfter);
    }
    return undefined;
  } finally {
    clearTimeout(timer);
  }
}

/** Prints the messages of a watch, also across reconnections. */
class WatchView {
  readonly #session: Session;
  readonly #isNamed: boolean;
  readonly #known = new Map<string, Known>();
  readonly #table = new Table(STOCK_COLUMNS);
  isConnected = false;
  #isStale = false;

  constructor(session: Session, productIds: readonly string[]) {
    this.#session = session;
    this.#isNamed = productIds.length > 0;
  }

  async show(message: WatchStockResponse): Promise<void> {
    const { output } = this.#session;
    const isFirst = message.snapshot && !this.isConnected;
    if (message.stale !== this.#isStale) {
      this.#isStale = message.stale;
      output.warn(
        message.stale
          ? "the server does not reach its store: the counts are the last known ones"
          : "the counts are current again",
      );
    }
    if (output.json) {
      if (message.stocks.length + message.removedProductIds.length > 0) {
        await output.writeJson(messageJson(WatchStockResponseSchema, message));
      }
    } else if (isFirst) {
      if (this.#isNamed && message.stocks.length > 0) await output.write(this.#table.format(message.stocks));
    } else {
      await output.write(this.#changeLines(message));
    }
    this.#learn(message);
    if (message.lastOfSnapshot) {
      if (!this.isConnected) output.note(`Watching ${plural(this.#known.size, "product")}; Ctrl-C ends it.`);
      this.isConnected = true;
    }
  }

  #changeLines({ stocks, removedProductIds, serverTime }: WatchStockResponse): string {
    const changed = stocks.flatMap(({ productId, available, version, updateTime, product }) => {
      const before = this.#known.get(productId);
      if (before !== undefined && before.version >= version) return [];
      const name = product?.name ?? before?.name ?? "";
      const delta = before === undefined ? "new" : signed(available - before.available);
      return [
        `${timeText(updateTime)}  ${productId}  ${String(available).padStart(6)}  ${delta.padStart(5)}  ${name}`,
      ];
    });
    const removed = removedProductIds
      .filter((productId) => this.#known.has(productId))
      .map((productId) => `${timeText(serverTime)}  ${productId}  removed`);
    return [...changed, ...removed].map((line) => `${printable(line).trimEnd()}\n`).join("");
  }

  #learn({ stocks, removedProductIds }: WatchStockResponse): void {
    for (const { productId, available, version, product } of stocks) {
      const name = product?.name ?? this.#known.get(productId)?.name ?? "";
      this.#known.set(productId, { available, version, name });
    }
    for (const productId of removedProductIds) this.#known.delete(productId);
  }
}
