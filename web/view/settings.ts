/** The settings of the page that the operator of the server chooses. */
export interface PageSettings {
  /** "Only 3 left" is shown at this many units or fewer. */
  readonly lowStockMax: number;
  /** Larger counts are shown as "10+ left"; 0: every count is shown exactly. */
  readonly exactCountMax: number;
  /** The shop's currency, ISO 4217. */
  readonly currency: string;
  /** Interval of the heartbeats of a watch. */
  readonly heartbeatMs: number;
  /** Absent: the page has a heading without a name. */
  readonly shopName?: string | undefined;
  /** The visitor's language tag, for numbers, prices and times. */
  readonly locale: string;
  /** Present in the demo. */
  readonly demo?: DemoSettings | undefined;
}

export interface DemoSettings {
  /** The illustration of each product of the demo: the path data of an SVG on a grid of 48 by 48. */
  readonly pictures: Readonly<Record<string, string>>;
  /** Whether visitors may reserve these products. */
  readonly canReserve: boolean;
}

export const PAGE_SETTINGS_DEFAULT: PageSettings = {
  lowStockMax: 5,
  exactCountMax: 0,
  currency: "EUR",
  locale: "en",
  heartbeatMs: 10_000,
};

/** Number of products per "Show more". */
export const LIST_STEP = 48;
/** Maximum number of products in a tab, so that two tabs fit into one watch of 1,000. */
export const LIST_MAX = 480;
/** How long a product is marked "Back in stock". */
export const BACK_IN_STOCK_MS = 120_000;
