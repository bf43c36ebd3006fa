import type { Command } from "commander";
import {
  type Collection,
  CollectionSchema,
  ListOrder,
  StockSchema,
} from "../../gen/inventory/v1/stock_pb.ts";
import { LedgerSchema, type StockChanged, StockChangedSchema } from "../../gen/inventory/v1/supply_pb.ts";
import {
  addLedgerFilters,
  catalogJson,
  type LedgerFilterOptions,
  listCatalog,
  PAGE_SIZE,
} from "../catalog.ts";
import { CATALOG_COLUMNS, HISTORY_COLUMNS, LEDGER_COLUMNS, STOCK_COLUMNS } from "../columns.ts";
import { defineCommand } from "../command.ts";
import { EXIT } from "../errors.ts";
import { ListPrinter, messagePrinter } from "../output/list-printer.ts";
import type { Column } from "../output/table.ts";
import { plural, printable } from "../output/text.ts";
import type { Session } from "../session.ts";
import { wholeNumber } from "../values.ts";

// Commands that read stock and ledgers.

/** Changes of a product that `history` shows, if `--limit` is not given. */
const HISTORY_LIMIT = 50;

const COLLECTION_COLUMNS: readonly Column<Collection>[] = [
  { title: "COLLECTION", value: ({ collectionId }) => collectionId },
  { title: "NAME", value: ({ name }) => name, widthMax: 40 },
  { title: "DESCRIPTION", value: ({ description }) => description, widthMax: 60 },
];

export function addReads(program: Command): void {
  addGet(program);
  addSearch(program);
  addList(program);
  addLedger(program);
  addHistory(program);
  addCollections(program);
}

function addGet(program: Command): void {
  defineCommand<[string[]]>(
    program,
    {
      usage: "get",
      summary: "Show how many units of products can be bought",
      description: "Needs no token. Exits with 1 if a product is unknown or deleted.",
      examples: ["npx inventory get demo-01 demo-02", "npx inventory get demo-01 --json"],
    },
    (command) => command.argument("<products...>", "product IDs, up to 1,000"),
    async (session, _options, productIds) => {
      const { stocks, unknownProductIds } = await session.stock.batchGetStock({ productIds });
      await messagePrinter(session.output, StockSchema, STOCK_COLUMNS).print(stocks);
      for (const productId of unknownProductIds) {
        session.output.note(
          `error: NOT_FOUND: product ${printable(JSON.stringify(productId))} is unknown or deleted`,
        );
      }
      return unknownProductIds.length > 0 ? EXIT.failed : EXIT.ok;
    },
  );
}

function addSearch(program: Command): void {
  defineCommand<[string[]], { inStock?: boolean; collection?: string; limit: number }>(
    program,
    {
      usage: "search",
      summary: "Find products by words in their name or ID",
      description: "Needs no token: the same search as on the shoppers' page.",
      examples: ["npx inventory search linen", "npx inventory search camping stove --in-stock"],
    },
    (command) =>
      command
        .argument("<words...>")
        .option("--in-stock", "only products with units available")
        .option("--collection <id>", "only products of this collection")
        .option("--limit <count>", "at most this many products", wholeNumber(1), 50),
    async (session, { inStock, collection, limit }, words) => {
      const printer = messagePrinter(session.output, StockSchema, STOCK_COLUMNS);
      let [left, pageToken] = [limit, ""];
      do {
        const page = await session.stock.listStock({
          pageSize: Math.min(PAGE_SIZE, left),
          pageToken,
          query: words.join(" "),
          inStockOnly: inStock ?? false,
          collectionId: collection ?? "",
          order: ListOrder.NAME,
        });
        await printer.print(page.stocks);
        left -= page.stocks.length;
        pageToken = page.nextPageToken;
        if (left <= 0 && pageToken !== "") {
          session.output.note(`${plural(page.totalSize, "product")} match; --limit shows more`);
        }
      } while (pageToken !== "" && left > 0);
      return undefined;
    },
  );
}

function addList(program: Command): void {
  defineCommand<[], LedgerFilterOptions>(
    program,
    {
      usage: "list",
      summary: "List products with their ledgers",
      description: "Needs the role supply or ops. With --json one product a line, as `export` writes them.",
      examples: [
        "npx inventory list --low",
        "npx inventory list --low 10 --order available",
        "npx inventory list --collection desk --json | head -n 3",
      ],
    },
    addLedgerFilters,
    async (session, options) => {
      const printer = new ListPrinter(session.output, CATALOG_COLUMNS, catalogJson);
      let shown = 0;
      for await (const { entries, total } of listCatalog(session, options)) {
        shown += entries.length;
        await printer.print(entries);
        if (shown === options.limit && shown < total) {
          session.output.note(`${plural(total, "product")} match`);
        }
      }
      return undefined;
    },
  );
}

function addLedger(program: Command): void {
  defineCommand<[string[]]>(
    program,
    {
      usage: "ledger",
      summary: "Show the ledgers of products, also of deleted ones",
      description:
        "on hand = declared + adjusted - sold; available = on hand - reserved - safety, at least 0.\nNeeds the role supply or ops.",
      examples: ["npx inventory ledger demo-01", "npx inventory ledger demo-01 demo-02 --json"],
    },
    (command) => command.argument("<products...>", "product IDs"),
    async (session, _options, productIds) => {
      const printer = messagePrinter(session.output, LedgerSchema, LEDGER_COLUMNS);
      for (const productId of productIds) {
        const { ledger } = await session.supply.getLedger({ productId });
        if (ledger !== undefined) await printer.print([ledger]);
      }
      return undefined;
    },
  );
}

function addHistory(program: Command): void {
  defineCommand<[string], { limit: number; all?: boolean }>(
    program,
    {
      usage: "history",
      summary: "Show the latest changes of a product: who took units, when and why",
      description: "Newest first. Needs the role supply or ops.",
      examples: ["npx inventory history demo-01", "npx inventory history demo-01 --limit 5 --json"],
    },
    (command) =>
      command
        .argument("<product>", "product ID")
        .option("--limit <count>", "at most this many changes", wholeNumber(1), HISTORY_LIMIT)
        .option("--all", "every change that is kept"),
    async (session, { limit, all }, productId) => {
      const printer = messagePrinter(session.output, StockChangedSchema, HISTORY_COLUMNS);
      const pages = listChanges(session, { productId }, all ? Number.POSITIVE_INFINITY : limit);
      for await (const { changes, truncated } of pages) {
        await printer.print(changes);
        if (truncated) session.output.note("Older changes were made, and are not kept any more.");
      }
      return undefined;
    },
  );
}

function addCollections(program: Command): void {
  defineCommand(
    program,
    {
      usage: "collections",
      summary: "List the collections of products",
      description: "Needs no token.",
      examples: ["npx inventory collections"],
    },
    (command) => command,
    async (session) => {
      const { collections } = await session.stock.listCollections({});
      await messagePrinter(session.output, CollectionSchema, COLLECTION_COLUMNS).print(collections);
      return undefined;
    },
  );
}

/** The changes of a product, or with a reference, page by page, newest first. */
export async function* listChanges(
  session: Session,
  filter: { readonly productId?: string; readonly referenceId?: string },
  limit: number,
): AsyncGenerator<{ readonly changes: readonly StockChanged[]; readonly truncated: boolean }> {
  let [left, pageToken] = [limit, ""];
  do {
    const page = await session.supply.listChanges({
      ...filter,
      pageSize: Math.min(PAGE_SIZE, left),
      pageToken,
    });
    left -= page.changes.length;
    pageToken = page.nextPageToken;
    yield { changes: page.changes, truncated: page.truncated };
  } while (pageToken !== "" && left > 0);
}
