import { Counter, Gauge, type Registry } from "prom-client";
import type { FeedListener, ProductState } from "../inventory/feed.ts";
import { CHANGE_CAUSES, type StockChange, shortfall } from "../inventory/ledger.ts";
import type { Mirror } from "./mirror.ts";
import type { Hub } from "./watch/hub.ts";

interface LiveMetricsSources {
  readonly mirror: Mirror;
  readonly hub: Hub;
  /** From here down, but above 0, a product counts as low. */
  readonly lowStockMax: number;
}

type Level = "out" | "low" | "plenty";

/**
 * Stock, mirror and watches. Products are counted as they change and never named: a shop has a million of them. Call it
 * before the mirror is fed.
 */
export function addLiveMetrics(registry: Registry, { mirror, hub, lowStockMax }: LiveMetricsSources): void {
  const registers = [registry];
  const products: Record<Level, number> = { out: 0, low: 0, plenty: 0 };
  const count = (state: ProductState | undefined, difference: number): void => {
    if (state !== undefined && !state.deleted) {
      const { available } = state;
      products[available === 0 ? "out" : available <= lowStockMax ? "low" : "plenty"] += difference;
    }
  };
  mirror.on("change", (changes) => {
    for (const { before, after } of changes) {
      count(before, -1);
      count(after, 1);
    }
  });
  let staleSince: number | undefined = performance.now();
  mirror.on("stale", (stale) => {
    staleSince = stale ? performance.now() : undefined;
  });

  const gauge = (name: string, help: string, value: () => number): Gauge =>
    new Gauge({
      name,
      help,
      registers,
      collect() {
        this.set(value());
      },
    });
  gauge(
    "inventory_products",
    "Products on sale that this server knows",
    () => products.out + products.low + products.plenty,
  );
  gauge("inventory_products_out_of_stock", "Products on sale of which none is available", () => products.out);
  gauge(
    "inventory_products_low_stock",
    `Products on sale of which 1 to ${lowStockMax} are available`,
    () => products.low,
  );
  gauge(
    "inventory_mirror_stale_seconds",
    "For how long shoppers' reads have been answered without the store; 0 while they follow it",
    () => (staleSince === undefined ? 0 : (performance.now() - staleSince) / 1_000),
  );
  gauge("inventory_watches_open", "Watches that are open", () => hub.size);
  gauge("inventory_watches_max", "Watches beyond which a new one is refused", () => hub.watchesMax);
  new Counter({
    name: "inventory_watch_reader_waits_total",
    help: "Times that a watch had its turn and its reader took nothing: slow readers",
    registers,
    collect() {
      this.reset();
      this.inc(hub.readerWaits);
    },
  });
  new Counter({
    name: "inventory_watch_messages_total",
    help: "Messages to watchers, by kind",
    labelNames: ["kind"],
    registers,
    collect() {
      this.reset();
      for (const [kind, messages] of Object.entries(hub.told)) {
        this.inc({ kind }, messages);
      }
    },
  });
}

/** The listener, with the changes that it is told counted by their causes. */
export function countingChanges(registry: Registry, listener: FeedListener): FeedListener {
  const registers = [registry];
  const changed = new Counter({
    name: "inventory_stock_changes_total",
    help: "Changes of products that this server has heard of, by cause; of all servers' making, so do not add them up",
    labelNames: ["cause"],
    registers,
  });
  const short = new Counter({
    name: "inventory_shortfall_changes_total",
    help: "Changes by a seller or a warehouse that left fewer units than are promised; of all servers' making",
    registers,
  });
  for (const cause of CHANGE_CAUSES) {
    changed.inc({ cause }, 0);
  }
  return {
    onLoading: (isOtherData) => listener.onLoading(isOtherData),
    onProducts: (states) => listener.onProducts(states),
    onLoaded: () => listener.onLoaded(),
    onChanges: (changes) => {
      for (const change of changes) {
        changed.inc({ cause: change.cause });
        if (leavesShort(change)) {
          short.inc();
        }
      }
      listener.onChanges(changes);
    },
    onCollections: (collections) => listener.onCollections(collections),
    onStale: (stale) => listener.onStale(stale),
  };
}

function leavesShort({ cause, ledger }: StockChange): boolean {
  return (cause === "declared" || cause === "counted" || cause === "adjusted") && shortfall(ledger) > 0;
}
