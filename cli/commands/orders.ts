import type { Timestamp } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError } from "@connectrpc/connect";
import type { Command } from "commander";
import {
  type Reservation,
  ReservationSchema,
  ReservationState,
} from "../../gen/inventory/v1/reservation_pb.ts";
import { type StockChanged, StockChangedSchema } from "../../gen/inventory/v1/supply_pb.ts";
import { PAGE_SIZE } from "../catalog.ts";
import { linesText, RESERVATION_COLUMNS, stateName, TRACE_COLUMNS } from "../columns.ts";
import { defineCommand } from "../command.ts";
import { codeName, EXIT } from "../errors.ts";
import { confirm } from "../output/confirm.ts";
import { messagePrinter } from "../output/list-printer.ts";
import { messageJson } from "../output/output.ts";
import { formatFields, Table } from "../output/table.ts";
import { plural, printable } from "../output/text.ts";
import type { Session } from "../session.ts";
import { timeFromNow, timeText, wholeNumber } from "../values.ts";
import { listChanges } from "./reads.ts";

// Commands about orders and their reservations.

export function addOrders(program: Command): void {
  addTrace(program);
  addReservations(program);
  addRelease(program);
}

function addTrace(program: Command): void {
  defineCommand<[string]>(
    program,
    {
      usage: "trace",
      summary: "Show what happened to an order: its reservation, and every change of stock that it caused",
      description: `<order> is a reservation ID, or the ID of an adjustment, a count or a return.
Needs the role ops: supply reads changes only, orders reads reservations only.`,
      examples: ["npx inventory adjust demo-02 5 --id delivery-7 && npx inventory trace delivery-7"],
    },
    (command) => command.argument("<order>", "reservation ID"),
    async (session, _options, referenceId) => {
      const [reservation, changes] = await Promise.all([
        readReservation(session, referenceId),
        readChanges(session, referenceId),
      ]);
      if (reservation.value === undefined && changes.value.length === 0) {
        // Neither service can be read: the error says more than an empty result.
        if (reservation.error !== undefined && changes.error !== undefined) throw reservation.error;
        const note = notReadable(reservation.error, changes.error);
        session.output.note(
          `error: NOT_FOUND: nothing is known of ${printable(JSON.stringify(referenceId))}; a refused request is only in the log of the server${note}`,
        );
        return EXIT.failed;
      }
      await printTrace(session, reservation.value, changes.value, changes.truncated);
      for (const error of [reservation.error, changes.error]) {
        if (error !== undefined) session.output.warn(`${codeName(error.code)}: ${error.rawMessage}`);
      }
      return undefined;
    },
  );
}

interface Trace<Value> {
  readonly value: Value;
  readonly error: ConnectError | undefined;
}

/** The reservation; nothing if it is unknown or if the credentials do not allow to read it. */
async function readReservation(
  session: Session,
  reservationId: string,
): Promise<Trace<Reservation | undefined>> {
  try {
    const { reservation } = await session.reservations.getReservation({ reservationId });
    return { value: reservation, error: undefined };
  } catch (thrown) {
    const error = ConnectError.from(thrown);
    if (error.code === Code.NotFound) return { value: undefined, error: undefined };
    if (error.code === Code.PermissionDenied) return { value: undefined, error };
    throw error;
  }
}

/** The changes, oldest first. */
async function readChanges(
  session: Session,
  referenceId: string,
): Promise<Trace<StockChanged[]> & { readonly truncated: boolean }> {
  const value: StockChanged[] = [];
  let truncated = false;
  try {
    for await (const page of listChanges(session, { referenceId }, Number.POSITIVE_INFINITY)) {
      value.push(...page.changes);
      truncated = page.truncated;
    }
  } catch (thrown) {
    const error = ConnectError.from(thrown);
    if (error.code !== Code.PermissionDenied) throw error;
    return { value, error, truncated };
  }
  return { value: value.reverse(), error: undefined, truncated };
}

function notReadable(...errors: readonly (ConnectError | undefined)[]): string {
  return errors.flatMap((error) => (error === undefined ? [] : [`; ${error.rawMessage}`])).join("");
}

async function printTrace(
  { output }: Session,
  reservation: Reservation | undefined,
  changes: readonly StockChanged[],
  truncated: boolean,
): Promise<void> {
  if (output.json) {
    await output.writeJson({
      ...(reservation && { reservation: messageJson(ReservationSchema, reservation) }),
      changes: changes.map((change) => messageJson(StockChangedSchema, change)),
      truncated,
    });
    return;
  }
  if (reservation !== undefined) {
    await output.write(`${formatFields(fieldsOf(reservation))}\n`);
  } else {
    output.note("There is no reservation with this ID, or it ended longer ago than the server keeps them.");
  }
  if (changes.length > 0) {
    await output.write(new Table(TRACE_COLUMNS).format(changes));
  } else {
    output.note("No change of stock with this ID is kept.");
  }
  if (truncated) output.note("Older changes were made, and are not kept any more.");
}

function fieldsOf(reservation: Reservation): (readonly [string, string])[] {
  const { state, committedLines, revived } = reservation;
  const isActive = state === ReservationState.ACTIVE;
  return [
    ["reservation", reservation.reservationId],
    ["state", `${stateName(state)}${revived ? " (revived after it expired)" : ""}`],
    ["lines", linesText(reservation.lines)],
    ...(committedLines.length > 0 ? [["sold", linesText(committedLines)] as const] : []),
    ["created", timeText(reservation.createTime)],
    isActive ? ["expires", timeText(reservation.expireTime)] : ["ended", timeText(reservation.endTime)],
  ];
}

function addReservations(program: Command): void {
  defineCommand<[], { product?: string; expireBefore?: Timestamp; limit?: number }>(
    program,
    {
      usage: "reservations",
      summary: "List active reservations, the earliest deadline first",
      description: "Needs the role orders or ops.",
      examples: [
        "npx inventory reservations",
        "npx inventory reservations --product demo-01",
        "npx inventory reservations --expire-before 1m --json",
      ],
    },
    (command) =>
      command
        .option("--product <id>", "only reservations with a line of this product")
        .option(
          "--expire-before <time>",
          "only those that expire before: a time, or 30s, 5m from now",
          timeFromNow("ahead"),
        )
        .option("--limit <count>", "at most this many", wholeNumber(1)),
    async (session, { product, expireBefore, limit }) => {
      const printer = messagePrinter(session.output, ReservationSchema, RESERVATION_COLUMNS);
      let [left, pageToken] = [limit ?? Number.POSITIVE_INFINITY, ""];
      do {
        const page = await session.reservations.listReservations({
          pageSize: Math.min(PAGE_SIZE, left),
          pageToken,
          productId: product ?? "",
          ...(expireBefore && { expireBefore }),
        });
        left -= page.reservations.length;
        pageToken = page.nextPageToken;
        await printer.print(page.reservations);
      } while (pageToken !== "" && left > 0);
      return undefined;
    },
  );
}

function addRelease(program: Command): void {
  defineCommand<[string[]], { yes?: boolean; dryRun?: boolean }>(
    program,
    {
      usage: "release",
      summary: "Release reservations: their units return to stock",
      description: `Asks first. The orders can then not be committed any more. Needs the role orders or ops.
An unknown ID is recorded as released, so that a delayed Reserve with it reserves nothing.`,
      examples: ["npx inventory release order-1 --dry-run", "npx inventory release order-1 order-2 --yes"],
    },
    (command) =>
      command
        .argument("<reservations...>", "reservation IDs")
        .option("--yes", "do not ask")
        .option("--dry-run", "print what would be released; change nothing"),
    async (session, { yes, dryRun }, reservationIds) => {
      const found = await Promise.all(reservationIds.map((id) => readReservation(session, id)));
      const denied = found.find(({ error }) => error !== undefined)?.error;
      if (denied !== undefined) throw denied;
      for (const [index, { value }] of found.entries()) {
        const what = value === undefined ? "unknown" : `${stateName(value.state)}: ${linesText(value.lines)}`;
        session.output.note(printable(`${reservationIds[index]}: ${what}`));
      }
      if (dryRun) return undefined;
      const question = `Release ${plural(reservationIds.length, "reservation")}?`;
      if (!(await confirm(question, yes))) return EXIT.failed;
      const printer = messagePrinter(session.output, ReservationSchema, RESERVATION_COLUMNS);
      for (const reservationId of reservationIds) {
        const { reservation } = await session.reservations.releaseReservation({ reservationId });
        if (reservation !== undefined) await printer.print([reservation]);
      }
      return undefined;
    },
  );
}
