/** What the orders' client did since its last report. */
export interface OrdersReport {
  /** Orders that were reserved and committed. */
  orders: number;
  /** The same, since the start. */
  total: number;
  /** Calls that failed and were repeated, by code. */
  failedCalls: Record<string, number>;
  /** Longest time between two completed orders, ms. */
  longestGapMs: number;
}
