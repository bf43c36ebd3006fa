/** What the server lets a merchant decide about the page. */
export interface PageSettings {
  /** "Only 3 left" at this many units and fewer. */
  readonly lowStockMax: number;
  /** Counts above this read as "10+"; 0 where every count is shown exactly. */
  readonly exactCountMax: number;
  /** ISO 4217: the shop's one currency. */
  readonly currency: string;
  /** How often a watch hears from the server when nothing changes. */
  readonly heartbeatMs: number;
}

export const PAGE_SETTINGS_DEFAULT: PageSettings = {
  lowStockMax: 5,
  exactCountMax: 0,
  currency: "EUR",
  heartbeatMs: 10_000,
};

/** Products of one step of the growing list. */
export const LIST_STEP = 48;
/** A tab shows no more than this, so that two tabs side by side fit into one watch of 1,000. */
export const LIST_MAX = 480;
/** How long "Back in stock" is said of a product that was sold out. */
export const BACK_IN_STOCK_MS = 120_000;
