import { randomUUID } from "node:crypto";
import type { Command } from "commander";
import { type Ledger, LedgerSchema } from "../../gen/inventory/v1/supply_pb.ts";
import { LEDGER_COLUMNS, signed } from "../columns.ts";
import { defineCommand } from "../command.ts";
import { CommandError, EXIT } from "../errors.ts";
import { confirm } from "../output/confirm.ts";
import { messagePrinter } from "../output/list-printer.ts";
import { printable } from "../output/text.ts";
import type { Session } from "../session.ts";
import { QUANTITY_MAX, wholeNumber } from "../values.ts";

// Commands that correct the stock of one product.

/** A count that changes on hand by more units, and by a larger share of it, needs a confirmation. */
const LARGE_UNITS = 10;
const LARGE_SHARE = 0.2;

interface CorrectionOptions {
  readonly id?: string;
  readonly reason?: string;
  readonly dryRun?: boolean;
}

export function addCorrections(program: Command): void {
  addAdjust(program);
  addCount(program);
  addSafety(program);
}

function addCorrectionOptions(command: Command, noun: string): Command {
  return command
    .option("--reason <text>", "for the history", "")
    .option(
      "--id <id>",
      `ID of this ${noun}: with the same ID it is made once, however often it is sent (a random one)`,
    )
    .option("--dry-run", "print what would change; change nothing");
}

function addAdjust(program: Command): void {
  defineCommand<[string, number], CorrectionOptions>(
    program,
    {
      usage: "adjust",
      summary: "Add units to a product, or remove them: goods received, damaged, lost, found",
      description: "Needs the role supply or ops. Fails if fewer units are on hand than are removed.",
      examples: [
        'npx inventory adjust demo-01 12 --reason "goods received"',
        'npx inventory adjust demo-01 -1 --reason "damaged" --dry-run',
      ],
    },
    (command) =>
      addCorrectionOptions(
        command
          .argument("<product>", "product ID")
          .argument("<delta>", "units added, or removed if below 0", wholeNumber(-QUANTITY_MAX)),
        "adjustment",
      ),
    async (session, { id = randomUUID(), reason = "", dryRun }, productId, delta) => {
      if (dryRun) {
        const ledger = await readLedger(session, productId);
        return printPlan(session, productId, [["on hand", ledger.onHand, ledger.onHand + delta]]);
      }
      const { ledger } = await session.supply.adjustStock({ productId, delta, adjustmentId: id, reason });
      return printLedger(session, ledger, `Adjusted by ${signed(delta)}; ID ${id}`);
    },
  );
}

function addCount(program: Command): void {
  defineCommand<[string, number], CorrectionOptions & { expectedVersion?: number; yes?: boolean }>(
    program,
    {
      usage: "count",
      summary: "Record a physical count: units on hand become the number counted",
      description: `Asks first if the count differs by more than ${LARGE_UNITS} units and ${LARGE_SHARE * 100} % from the units on hand.
Units of paid orders that have not left the shelf are not on hand: they are sold. Needs the role supply or ops.`,
      examples: [
        'npx inventory count demo-03 17 --reason "annual count" --yes',
        "npx inventory count demo-03 0 --dry-run",
      ],
    },
    (command) =>
      addCorrectionOptions(
        command
          .argument("<product>", "product ID")
          .argument("<units>", "units counted", wholeNumber(0))
          .option(
            "--expected-version <version>",
            "fail unless the product is at this version",
            wholeNumber(0, Number.MAX_SAFE_INTEGER),
          )
          .option("--yes", "do not ask"),
        "count",
      ),
    async (session, { id = randomUUID(), reason = "", expectedVersion, yes, dryRun }, productId, count) => {
      const before = await readLedger(session, productId);
      const change = count - before.onHand;
      if (dryRun) return printPlan(session, productId, [["on hand", before.onHand, count]]);
      if (Math.abs(change) > Math.max(LARGE_UNITS, Math.abs(before.onHand) * LARGE_SHARE)) {
        const question = `${productId} has ${before.onHand} units on hand. Change that by ${signed(change)}, to ${count}?`;
        if (!(await confirm(question, yes))) return EXIT.failed;
      }
      const { ledger } = await session.supply.countStock({
        productId,
        count,
        countId: id,
        reason,
        ...(expectedVersion !== undefined && { expectedVersion: BigInt(expectedVersion) }),
      });
      return printLedger(session, ledger, `Counted ${count}; ID ${id}`);
    },
  );
}

function addSafety(program: Command): void {
  defineCommand<[string, number], { dryRun?: boolean }>(
    program,
    {
      usage: "safety",
      summary: "Set how many units of a product are withheld from sale",
      description: "Needs the role supply or ops.",
      examples: ["npx inventory safety demo-05 2", "npx inventory safety demo-05 0 --dry-run"],
    },
    (command) =>
      command
        .argument("<product>", "product ID")
        .argument("<units>", "units to withhold", wholeNumber(0))
        .option("--dry-run", "print what would change; change nothing"),
    async (session, { dryRun }, productId, safety) => {
      if (dryRun) {
        const before = await readLedger(session, productId);
        return printPlan(session, productId, [["safety", before.safety, safety]]);
      }
      const { ledger } = await session.supply.setSafetyStock({ productId, safety });
      return printLedger(session, ledger, `Safety stock set to ${safety}`);
    },
  );
}

export async function readLedger(session: Session, productId: string): Promise<Ledger> {
  const { ledger } = await session.supply.getLedger({ productId });
  if (ledger === undefined) throw new CommandError("the server returned no ledger");
  return ledger;
}

export async function printLedger(
  session: Session,
  ledger: Ledger | undefined,
  note: string,
): Promise<undefined> {
  session.output.note(printable(note));
  if (ledger !== undefined) {
    await messagePrinter(session.output, LedgerSchema, LEDGER_COLUMNS).print([ledger]);
  }
}

/** Prints what a dry run found: `demo-01: on hand 24 → 36`. */
export async function printPlan(
  session: Session,
  productId: string,
  fields: readonly (readonly [name: string, before: string | number, after: string | number])[],
): Promise<undefined> {
  const changed = fields.filter(([, before, after]) => before !== after);
  if (session.output.json) {
    const changes = Object.fromEntries(changed.map(([name, before, after]) => [name, { before, after }]));
    await session.output.writeJson({ productId, changes });
    return;
  }
  const text =
    changed.map(([name, before, after]) => `${name} ${before} → ${after}`).join(", ") || "no change";
  await session.output.write(`${printable(`${productId}: ${text}`)}\n`);
}
