import { Counter, Gauge, type Registry } from "prom-client";
import type { FeedListener, ProductState } from "../inventory/feed.ts";
import { CHANGE_CAUSES, type ChangeCause, type StockChange, shortfall } from "../inventory/ledger.ts";
import type { Mirror } from "./mirror.ts";
import type { SoldOutGate } from "./sold-out-gate.ts";
import type { Hub } from "./watch/hub.ts";

interface LiveMetricsSources {
  readonly mirror: Mirror;
  readonly hub: Hub;
  readonly soldOut: SoldOutGate;
  /** A product with 1 to this many available units counts as low. */
  readonly lowStockMax: number;
}

type Level = "out" | "low" | "plenty";

/**
 * Adds the metrics of stock, mirror and watches. No metric has a product as a label: a shop has a million of them. Call
 * it before the feed starts.
 */
export function addLiveMetrics(
  registry: Registry,
  { mirror, hub, soldOut, lowStockMax }: LiveMetricsSources,
): void {
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
  mirror.on("stale", () => {
    staleSince = mirror.isStale ? (staleSince ?? performance.now()) : undefined;
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
  gauge("inventory_products", "Products on sale", () => products.out + products.low + products.plenty);
  gauge("inventory_products_out_of_stock", "Products on sale without an available unit", () => products.out);
  gauge(
    "inventory_products_low_stock",
    `Products on sale with 1 to ${lowStockMax} available units`,
    () => products.low,
  );
  gauge(
    "inventory_mirror_stale_seconds",
    "Seconds since the mirror became stale; 0 while it is current",
    () => (staleSince === undefined ? 0 : (performance.now() - staleSince) / 1_000),
  );
  gauge("inventory_watches_open", "Open watches", () => hub.size);
  gauge("inventory_watches_max", "Maximum number of open watches", () => hub.watchesMax);
  new Counter({
    name: "inventory_watch_reader_waits_total",
    help: "Times that a message was due and the reader of the watch was not ready",
    registers,
    collect() {
      this.reset();
      this.inc(hub.readerWaits);
    },
  });
  new Counter({
    name: "inventory_sold_out_refusals_total",
    help: "Reserve calls of sold-out products that this server refused without running them in the store",
    registers,
    collect() {
      this.reset();
      this.inc(soldOut.refusals);
    },
  });
  new Counter({
    name: "inventory_watch_messages_total",
    help: "Messages of watches, by kind",
    labelNames: ["kind"],
    registers,
    collect() {
      this.reset();
      for (const [kind, messages] of Object.entries(hub.messageCounts)) {
        // The label keeps its former value, which queries of dashboards name.
        this.inc({ kind: kind === "reconnect" ? "goodbye" : kind }, messages);
      }
    },
  });
}

/** Wraps a listener and counts the changes that it receives, by cause. */
export function countingChanges(registry: Registry, listener: FeedListener): FeedListener {
  const registers = [registry];
  const changed = new Counter({
    name: "inventory_stock_changes_total",
    help: "Changes of products that this server received, by cause. Every server receives all of them: do not sum over servers",
    labelNames: ["cause"],
    registers,
  });
  const shortfalls = new Counter({
    name: "inventory_shortfall_changes_total",
    help: "Changes by a seller or a warehouse that left a shortfall. Every server receives all of them: do not sum over servers",
    registers,
  });
  for (const cause of CHANGE_CAUSES) {
    changed.inc({ cause }, 0);
  }
  return {
    onStart: (partitions) => listener.onStart(partitions),
    onLoading: (isOtherData, partition) => listener.onLoading(isOtherData, partition),
    onProducts: (states, partition) => listener.onProducts(states, partition),
    onLoaded: (partition) => listener.onLoaded(partition),
    onUnavailable: (partition) => listener.onUnavailable(partition),
    onChanges: (changes, partition) => {
      for (const [cause, count] of countByCause(changes)) {
        changed.inc({ cause }, count);
      }
      shortfalls.inc(changes.filter(causesShortfall).length);
      listener.onChanges(changes, partition);
    },
    onSuperseded: (causes) => {
      for (const [cause, count] of causes) {
        changed.inc({ cause }, count);
      }
      listener.onSuperseded(causes);
    },
    onCollections: (collections) => listener.onCollections(collections),
    onCurrent: (atMs, partition) => listener.onCurrent(atMs, partition),
  };
}

function countByCause(changes: readonly StockChange[]): Map<ChangeCause, number> {
  const counts = new Map<ChangeCause, number>();
  for (const { cause } of changes) {
    counts.set(cause, (counts.get(cause) ?? 0) + 1);
  }
  return counts;
}

function causesShortfall({ cause, ledger }: StockChange): boolean {
  return (cause === "declared" || cause === "counted" || cause === "adjusted") && shortfall(ledger) > 0;
}
