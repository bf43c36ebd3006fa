import type { Timestamp } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError } from "@connectrpc/connect";
import type { Command } from "commander";
import type { Product } from "../../gen/inventory/v1/stock_pb.ts";
import { PutProductResponseSchema } from "../../gen/inventory/v1/supply_pb.ts";
import { defineCommand } from "../command.ts";
import { EXIT, type ExitCode, usageError } from "../errors.ts";
import { confirm } from "../output/confirm.ts";
import { messageJson } from "../output/output.ts";
import { plural, printable } from "../output/text.ts";
import type { Session } from "../session.ts";
import { price, timeFromNow, wholeNumber } from "../values.ts";
import { printLedger, printPlan, readLedger } from "./corrections.ts";

// Commands that declare and delete products and collections, as their sellers do.

interface PutOptions {
  readonly name?: string;
  readonly price?: number;
  readonly description?: string;
  readonly collection?: string;
  readonly declared?: number;
  readonly updateTime?: Timestamp;
  readonly dryRun?: boolean;
}

export function addProducts(program: Command): void {
  addPut(program);
  addDelete(program);
  addPutCollection(program);
  addDeleteCollection(program);
}

function addPut(program: Command): void {
  defineCommand<[string], PutOptions>(
    program,
    {
      usage: "put",
      summary: "Create a product, or change its details or its declared units",
      description: `What is not given stays as it is; a new product needs --name and --price.
--declared is the number of units supplied in total, as the seller counts them. Needs the role supply or ops.`,
      examples: [
        'npx inventory put mug-1 --name "Enamel Mug" --price 14 --declared 120',
        "npx inventory put demo-09 --price 15.50",
      ],
    },
    (command) =>
      command
        .argument("<product>", "product ID")
        .option("--name <name>")
        .option("--price <price>", "in the shop's currency", price)
        .option("--description <text>")
        .option("--collection <id>", 'collection; "" for none')
        .option("--declared <units>", "units supplied in total", wholeNumber(0))
        .option("--update-time <time>", "when the seller made the update (now)", timeFromNow("ago"))
        .option("--dry-run", "print what would change; change nothing"),
    async (session, { declared, updateTime, dryRun, ...given }, productId) => {
      const stored = await readDetails(session, productId);
      const details = mergeDetails(stored, given);
      if (details === undefined && declared === undefined) {
        throw usageError("Nothing to change: give --declared, or details such as --price");
      }
      if (dryRun) return planPut(session, productId, stored, details, declared);
      const response = await session.supply.putProduct({
        productId,
        ...(details && { product: details }),
        ...(declared !== undefined && { declared }),
        ...(updateTime && { updateTime }),
      });
      if (session.output.json) {
        await session.output.writeJson(messageJson(PutProductResponseSchema, response));
        return undefined;
      }
      if (!response.applied) session.output.warn("not applied: a newer update or deletion is stored");
      return printLedger(
        session,
        response.ledger,
        `${productId}: ${response.applied ? "stored" : "unchanged"}`,
      );
    },
  );
}

/** The stored details; `undefined` if the product is unknown or deleted. */
async function readDetails(session: Session, productId: string): Promise<Product | undefined> {
  const { stocks } = await session.stock.batchGetStock({ productIds: [productId] });
  return stocks[0]?.product;
}

type GivenDetails = Pick<PutOptions, "name" | "price" | "description" | "collection">;
type Details = Pick<Product, "name" | "price" | "description" | "collectionId">;

/** Details are stored as a whole, so what is not given is taken from the stored ones. `undefined` if none are given. */
function mergeDetails(stored: Product | undefined, given: GivenDetails): Details | undefined {
  const isGiven = [given.name, given.price, given.description, given.collection].some(
    (each) => each !== undefined,
  );
  if (!isGiven) return undefined;
  const name = given.name ?? stored?.name;
  const newPrice = given.price ?? stored?.price;
  if (name === undefined || newPrice === undefined) {
    throw usageError("The product has no details yet: give both --name and --price");
  }
  return {
    name,
    price: newPrice,
    description: given.description ?? stored?.description ?? "",
    collectionId: given.collection ?? stored?.collectionId ?? "",
  };
}

async function planPut(
  session: Session,
  productId: string,
  stored: Product | undefined,
  details: Details | undefined,
  declared: number | undefined,
): Promise<undefined> {
  const declaredBefore = await readDeclared(session, productId);
  return printPlan(session, productId, [
    ...(details === undefined
      ? []
      : [
          ["name", stored?.name ?? "none", details.name ?? ""] as const,
          ["price", stored?.price ?? "none", details.price ?? 0] as const,
          ["description", stored?.description ?? "none", details.description] as const,
          ["collection", stored?.collectionId ?? "none", details.collectionId] as const,
        ]),
    ...(declared === undefined ? [] : [["declared", declaredBefore, declared] as const]),
  ]);
}

async function readDeclared(session: Session, productId: string): Promise<number | "none"> {
  try {
    return (await readLedger(session, productId)).declared;
  } catch (error) {
    if (error instanceof ConnectError && error.code === Code.NotFound) return "none";
    throw error;
  }
}

interface DeleteOptions {
  readonly yes?: boolean;
  readonly dryRun?: boolean;
}

function addDelete(program: Command): void {
  defineCommand<[string[]], DeleteOptions>(
    program,
    {
      usage: "delete",
      summary: "Remove products from sale",
      description: `Asks first. Their reservations can still be committed or released, and their ledgers stay.
Needs the role supply or ops.`,
      examples: ["npx inventory delete demo-23 demo-24 --dry-run", "npx inventory delete demo-24 --yes"],
    },
    (command) => deletion(command.argument("<products...>", "product IDs")),
    async (session, { yes, dryRun }, productIds) => {
      for (const productId of productIds) {
        const { deleted, available, reserved } = await readLedger(session, productId);
        const what = deleted ? "deleted already" : `${available} available, ${reserved} reserved`;
        session.output.note(printable(`${productId}: ${what}`));
      }
      return deleteAll(session, { yes, dryRun, ids: productIds, noun: "product" }, (productId) =>
        session.supply.deleteProduct({ productId }),
      );
    },
  );
}

function deletion(command: Command): Command {
  return command
    .option("--yes", "do not ask")
    .option("--dry-run", "print what would be deleted; change nothing");
}

async function deleteAll(
  session: Session,
  {
    yes,
    dryRun,
    ids,
    noun,
  }: { yes: boolean | undefined; dryRun: boolean | undefined; ids: string[]; noun: string },
  remove: (id: string) => Promise<{ readonly applied: boolean }>,
): Promise<ExitCode> {
  if (dryRun) return EXIT.ok;
  if (!(await confirm(`Delete ${plural(ids.length, noun)}?`, yes))) return EXIT.failed;
  for (const id of ids) {
    const { applied } = await remove(id);
    if (session.output.json) {
      await session.output.writeJson({ [`${noun}Id`]: id, applied });
    } else {
      await session.output.write(
        printable(`${id}: ${applied ? "deleted" : "not deleted: a newer update is stored"}`),
      );
      await session.output.write("\n");
    }
  }
  return EXIT.ok;
}

function addPutCollection(program: Command): void {
  defineCommand<[string], { name: string; description: string }>(
    program,
    {
      usage: "put-collection",
      summary: "Create a collection, or replace its name and description",
      description: "Needs the role supply or ops.",
      examples: ['npx inventory put-collection garden --name "Garden" --description "For dry summers."'],
    },
    (command) =>
      command
        .argument("<collection>", "collection ID")
        .requiredOption("--name <name>")
        .option("--description <text>", "", ""),
    async (session, { name, description }, collectionId) => {
      const { applied } = await session.supply.putCollection({
        collection: { collectionId, name, description },
      });
      if (session.output.json) {
        await session.output.writeJson({ collectionId, applied });
      } else {
        await session.output.write(printable(`${collectionId}: ${applied ? "stored" : "unchanged"}`));
        await session.output.write("\n");
      }
      return undefined;
    },
  );
}

function addDeleteCollection(program: Command): void {
  defineCommand<[string[]], DeleteOptions>(
    program,
    {
      usage: "delete-collection",
      summary: "Delete collections; their products stay on sale",
      description: "Asks first. Needs the role supply or ops.",
      examples: [
        "npx inventory delete-collection outdoors --dry-run",
        "npx inventory delete-collection outdoors --yes",
      ],
    },
    (command) => deletion(command.argument("<collections...>", "collection IDs")),
    async (session, { yes, dryRun }, collectionIds) => {
      const { collections } = await session.stock.listCollections({});
      const names = new Map(collections.map(({ collectionId, name }) => [collectionId, name]));
      for (const id of collectionIds) session.output.note(printable(`${id}: ${names.get(id) ?? "unknown"}`));
      return deleteAll(session, { yes, dryRun, ids: collectionIds, noun: "collection" }, (collectionId) =>
        session.supply.deleteCollection({ collectionId }),
      );
    },
  );
}
