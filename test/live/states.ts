import { randomInt } from "node:crypto";
import { afterEach, mock, type TestContext } from "node:test";
import { setImmediate as turn } from "node:timers/promises";
import type { ProductState } from "../../server/inventory/feed.ts";
import type { Ledger, ProductDetails, StockChange } from "../../server/inventory/ledger.ts";
import { Mirror } from "../../server/live/mirror.ts";
import type { Watch } from "../../server/live/watch/watch.ts";
import type { WatchUpdate } from "../../server/live/watch/watch-message.ts";
import { updatesOf as pulled } from "../../server/live/watch/watch-updates.ts";

const { FC_SEED } = process.env;

/** The seed of a random test, which is printed: FC_SEED, or a new one. */
export function seedOf(t: TestContext): number {
  const seed = FC_SEED === undefined ? randomInt(2 ** 31) : Number(FC_SEED);
  t.diagnostic(`FC_SEED=${seed}`);
  return seed;
}

export function detailsOf(name: string, more: Partial<ProductDetails> = {}): ProductDetails {
  return { name, description: "", price: 1, collectionId: "", ...more };
}

/** A product at a version. Two states of a product differ in the version only, unless `more` has other values. */
export function stateOf(productId: string, version: number, more: Partial<ProductState> = {}): ProductState {
  return {
    productId,
    version,
    available: version * 10,
    updateTimeMs: 1_000 + version,
    details: undefined,
    deleted: false,
    isReserved: false,
    isShort: false,
    ...more,
  };
}

/** The change that led to a state. It has the details only if they are given. */
export function changeTo(state: ProductState, details?: ProductDetails): StockChange {
  const ledger: Ledger = {
    productId: state.productId,
    declared: state.available,
    declareTimeMicros: 1,
    adjusted: 0,
    sold: 0,
    reserved: 0,
    safety: 0,
    version: state.version,
    deleted: state.deleted,
  };
  return {
    cause: state.deleted ? "deleted" : "adjusted",
    delta: 0,
    ledger,
    changeTimeMs: state.updateTimeMs,
    referenceId: "",
    reason: "",
    actor: "",
    details,
  };
}

/** Reports a full load to a mirror. */
export function load(mirror: Mirror, states: readonly ProductState[], isOtherData = false): void {
  mirror.onLoading(isOtherData);
  mirror.onProducts(states);
  mirror.onLoaded();
}

/** A loaded mirror. It is current at all times, or with a clock at the time of the load. */
export function loadedMirror(states: readonly ProductState[], now?: () => number): Mirror {
  const mirror = new Mirror(now);
  load(mirror, states);
  mirror.onCurrent(now?.() ?? Number.POSITIVE_INFINITY);
  return mirror;
}

/** The messages of a watch. Ended after the test even if it fails, because an open watch has timers. */
export function updatesOf(watch: Watch): AsyncGenerator<WatchUpdate> {
  const updates = pulled(watch);
  opened.push({ watch, updates });
  return updates;
}

const opened: { readonly watch: Watch; readonly updates: AsyncGenerator<WatchUpdate> }[] = [];

export function endUpdatesAfterEach(): void {
  afterEach(async () => {
    for (const { watch, updates } of opened.splice(0)) {
      watch.close();
      await updates.return(undefined);
    }
  });
}

/** Turns of the event loop after which everything that can run has run, for as many watches as a test opens. */
const TURNS = 20;

export async function turns(): Promise<void> {
  for (let n = 0; n < TURNS; n++) {
    await turn();
  }
}

/** A clock, and the process's timers, that only advance by `pass`. */
export function stoppedClock() {
  mock.timers.enable({ apis: ["setTimeout"] });
  let nowMs = 0;
  const advance = (ms: number): void => {
    nowMs += ms;
    mock.timers.tick(ms);
  };
  return {
    now: () => nowMs,
    advance,
    pass: async (ms: number): Promise<void> => {
      advance(ms);
      await turns();
    },
    [Symbol.dispose]: () => mock.timers.reset(),
  };
}
