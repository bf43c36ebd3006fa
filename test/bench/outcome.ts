import { ratios, type Spread, spreadOf } from "./statistics.ts";

/** The target of a figure: of its ratio to the peer, or of the figure itself if there is no peer. */
export type Target = { readonly atLeast: number } | { readonly atMost: number };

/** One row of the table: the figures of all rounds, and the peer's figures of the same rounds. */
export interface Outcome {
  /** The operation: `GetStock, gRPC over h2c`. */
  readonly what: string;
  readonly unit: string;
  readonly here: readonly number[];
  readonly peer?: { readonly name: string; readonly there: readonly number[] } | undefined;
  /** Absent: the figure has no target. */
  readonly target?: Target | undefined;
}

/** An outcome with its statistics, as printed and kept. */
export interface Line {
  readonly what: string;
  readonly unit: string;
  readonly here: Spread;
  readonly peer?: { readonly name: string; readonly there: Spread; readonly ratio: Spread } | undefined;
  readonly target?: Target | undefined;
  readonly isMet?: boolean | undefined;
}

export function lineOf({ what, unit, here, peer, target }: Outcome): Line {
  const compared = peer && {
    name: peer.name,
    there: spreadOf(peer.there),
    ratio: spreadOf(ratios(here, peer.there)),
  };
  const judged = (compared?.ratio ?? spreadOf(here)).median;
  return {
    what,
    unit,
    here: spreadOf(here),
    peer: compared,
    target,
    isMet: target && ("atLeast" in target ? judged >= target.atLeast : judged <= target.atMost),
  };
}

const COLUMNS = ["what", "here", "compared with", "there", "ratio", "target", "verdict"] as const;

/** The texts of a line in the order of `COLUMNS`. */
function cellsOf(line: Line): string[] {
  return [
    line.what,
    `${withSpread(line.here)} ${line.unit}`,
    line.peer?.name ?? "",
    line.peer ? withSpread(line.peer.there) : "",
    line.peer ? withSpread(line.peer.ratio) : "",
    targetText(line),
    verdictOf(line),
  ];
}

/** The result in one text: the ratio first where there is one. */
export function resultOf({ here, unit, peer }: Line): string {
  const figures = `${withSpread(here)} ${unit}`;
  return peer === undefined ? figures : `${withSpread(peer.ratio)} × ${peer.name}: ${figures}`;
}

export function verdictOf({ isMet }: Line): string {
  return isMet === undefined ? "" : isMet ? "met" : "NOT MET";
}

/** Formats lines as a Markdown table that is also readable on a terminal. */
export function tableOf(lines: readonly Line[]): string {
  return markdownTable(COLUMNS, lines.map(cellsOf));
}

export function markdownTable(columns: readonly string[], rows: readonly (readonly string[])[]): string {
  const widths = columns.map((name, column) =>
    Math.max(name.length, ...rows.map((row) => row[column]?.length ?? 0)),
  );
  const layOut = (cells: readonly string[], fill = " "): string =>
    `| ${cells.map((cell, column) => cell.padEnd(widths[column] ?? 0, fill)).join(" | ")} |`;
  return [
    layOut(columns),
    layOut(
      columns.map(() => ""),
      "-",
    ),
    ...rows.map((row) => layOut(row)),
  ].join("\n");
}

export function targetText({ target, peer, unit }: Line): string {
  if (target === undefined) {
    return "";
  }
  const [sign, bound] = "atLeast" in target ? ["≥", target.atLeast] : ["≤", target.atMost];
  return `${sign} ${bound} ${peer === undefined ? unit : "times"}`;
}

function withSpread({ median, min, max }: Spread): string {
  return min === max ? figure(median) : `${figure(median)} (${figure(min)}–${figure(max)})`;
}

/** Three significant digits. */
function figure(value: number): string {
  return value.toLocaleString("en", { maximumSignificantDigits: 3 });
}
