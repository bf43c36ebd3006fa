import type { PageSettings } from "./settings.ts";

/** The level of a count. Each has its own icon and text, because colour alone is not accessible. */
export type StockLevel = "some" | "low" | "none" | "removed";

export interface CountLabel {
  readonly level: StockLevel;
  readonly text: string;
}

const numbers = new Intl.NumberFormat("en");

/** The text of a count: "Sold out", "Only 3 left", "24 left", "10+ left". `format` is that of numbers. */
export function countLabel(
  available: number,
  settings: Pick<PageSettings, "lowStockMax" | "exactCountMax">,
  format: (count: number) => string = (count) => numbers.format(count),
): CountLabel {
  if (available <= 0) {
    return { level: "none", text: "Sold out" };
  }
  if (available <= settings.lowStockMax) {
    return { level: "low", text: `Only ${format(available)} left` };
  }
  const { exactCountMax } = settings;
  const isBand = exactCountMax > 0 && available > exactCountMax;
  return {
    level: "some",
    text: `${format(isBand ? exactCountMax : available)}${isBand ? "+" : ""} left`,
  };
}
