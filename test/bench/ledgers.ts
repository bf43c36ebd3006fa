import { setImmediate as nextTurn } from "node:timers/promises";
import type { ProductState } from "../../server/inventory/feed.ts";
import { Catalog } from "../../server/live/catalog/catalog.ts";
import { LedgerList, type LedgerQuery } from "../../server/live/catalog/ledger-list.ts";
import { Mirror } from "../../server/live/mirror.ts";
import type { Bench, BenchContext } from "./bench-context.ts";
import { productIdOf } from "./catalog.ts";
import { type Turn, takeTurns, values } from "./rounds.ts";
import { quantile } from "./statistics.ts";

const PRODUCTS = 1_000_000;
const PER_LOAD = 1_000;
const PAGE = 1_000;
const PAGES_PER_TURN = 20;

const EVERYTHING: LedgerQuery = {
  filter: {
    maxAvailable: undefined,
    shortfallOnly: false,
    reservedOnly: false,
    deleted: "excluded",
    collectionId: "",
    changedSinceMs: undefined,
  },
  order: "product_id",
  descending: false,
  limit: PAGE,
  after: undefined,
};

const LISTS: Readonly<Record<string, LedgerQuery>> = {
  "all, by product ID": EVERYTHING,
  "all with deleted ones, by update time": {
    ...EVERYTHING,
    order: "update_time",
    filter: { ...EVERYTHING.filter, deleted: "included" },
  },
  "low stock, by available": {
    ...EVERYTHING,
    order: "available",
    filter: { ...EVERYTHING.filter, maxAvailable: 5 },
  },
  "the last tenth to change, latest first": {
    ...EVERYTHING,
    order: "update_time",
    descending: true,
    filter: { ...EVERYTHING.filter, changedSinceMs: (9 * PRODUCTS) / 10 },
  },
  "one in 10,000 with reserved units": {
    ...EVERYTHING,
    filter: { ...EVERYTHING.filter, reservedOnly: true },
  },
};

/** Pages of ListLedgers of a million products, without the reading of the ledgers; and what other requests notice of them. */
export const measureLedgers: Bench = async (context) => {
  const mirror = await load();
  const catalog = new Catalog(mirror);
  mirror.onLoaded();
  await catalog.firstSorted;
  const list = new LedgerList(catalog, mirror.table);
  const turnsOf = async (delays: boolean) =>
    takeTurns(
      Object.fromEntries(
        Object.entries(LISTS).map(([name, query]) => [name, () => readPages(list, query, delays)] as const),
      ),
      quiet(context),
    );
  const [times, delays] = [await turnsOf(false), await turnsOf(true)];
  return Object.keys(LISTS).flatMap((name) => [
    { what: `A page of ${PAGE}: ${name}`, unit: "ms", here: values(times[name] ?? []) },
    {
      what: `Longest turn of the event loop, CPU time: ${name}`,
      unit: "ms",
      here: values(delays[name] ?? []),
      target: { atMost: 20 },
    },
  ]);
};

/**
 * Reads some pages. Resolves with the median time of a page, or with the longest turn of the event loop
 * meanwhile, in CPU time.
 */
async function readPages(list: LedgerList, query: LedgerQuery, delays: boolean): Promise<Turn> {
  const pages: number[] = [];
  let isReading = true;
  let longest = 0;
  const watching = (async () => {
    let last = cpuMs();
    while (delays && isReading) {
      await nextTurn();
      const now = cpuMs();
      longest = Math.max(longest, now - last);
      last = now;
    }
  })();
  let { after } = query;
  for (let n = 0; n < PAGES_PER_TURN; n++) {
    const startedAt = performance.now();
    const { next } = await list.page({ ...query, after });
    pages.push(performance.now() - startedAt);
    after = next;
  }
  isReading = false;
  await watching;
  return { value: delays ? longest : quantile(pages, 0.5) };
}

/** CPU time of this thread, which a busy machine does not lengthen. */
function cpuMs(): number {
  const { user, system } = process.threadCpuUsage();
  return (user + system) / 1_000;
}

async function load(): Promise<Mirror> {
  const mirror = new Mirror();
  mirror.onLoading(false);
  for (let from = 1; from <= PRODUCTS; from += PER_LOAD) {
    mirror.onProducts(Array.from({ length: PER_LOAD }, (_, index) => stateOf(from + index)));
    await nextTurn();
  }
  return mirror;
}

function stateOf(n: number): ProductState {
  const shuffled = (n * 7_919) % PRODUCTS;
  return {
    productId: productIdOf(n),
    available: shuffled % 100,
    version: 1,
    updateTimeMs: shuffled,
    details: { name: `Mug No. ${n}`, description: "", price: 5, collectionId: `collection-${n % 20}` },
    deleted: shuffled % 50 === 0,
    isReserved: shuffled % 10_000 === 7,
    isShort: false,
  };
}

/** Nothing is under load, so there are no shares of a core to print. */
function quiet(context: BenchContext): BenchContext {
  return { ...context, note: () => {} };
}
