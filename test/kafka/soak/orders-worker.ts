/** Orders in a thread of its own, so that the durations it measures do not include the work of the sellers' side. */
import { parentPort, workerData } from "node:worker_threads";
import { randomFrom } from "../platform.ts";
import { Shoppers } from "../shoppers.ts";

export interface OrdersOptions {
  readonly url: string;
  readonly productIds: readonly string[];
  readonly shoppers: number;
  readonly pauseMs: number;
  readonly seed: number;
}

/** What a request for figures or for the end is answered with. */
export interface OrdersReport {
  /** Of every attempt since the last report, ms. */
  readonly durationsMs: readonly number[];
  readonly bought: ReadonlyMap<string, number>;
  readonly refused: number;
  readonly retries: number;
}

const { url, productIds, shoppers: count, pauseMs, seed } = workerData as OrdersOptions;
const random = randomFrom(seed);
const shoppers = new Shoppers([url], count, () => productIds[random(productIds.length)] ?? "", pauseMs);

parentPort?.on("message", async (request: "report" | "stop") => {
  if (request === "stop") {
    await shoppers.stop();
  }
  const { durationsMs, bought, refused, retries } = shoppers;
  shoppers.durationsMs = [];
  const report: OrdersReport = { durationsMs, bought, refused, retries };
  parentPort?.postMessage(report);
  if (request === "stop") {
    parentPort?.close();
  }
});
