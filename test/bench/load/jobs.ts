import { setTimeout as pause } from "node:timers/promises";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { SupplyService } from "../../../gen/inventory/v1/supply_pb.ts";
import { Caller, untilDone } from "./caller.ts";
import { Crowd, type CrowdOptions } from "./crowd.ts";
import { Orders } from "./orders.ts";

/** The parameters and the result of a job. Both are plain data, to be sent between processes. */
interface Job<Asked, Answer> {
  readonly asked: Asked;
  readonly answer: Answer;
}

/** The jobs of the load generator. */
export interface Jobs {
  /** Opens watchers of a crowd. The first ones create the crowd. */
  readonly openWatchers: Job<CrowdOptions & { readonly crowd: string; readonly count: number }, undefined>;
  /** Reserves a unit of the watched product, waits until all have the new count, and repeats for a time. */
  readonly fanOut: Job<
    { readonly crowd: string; readonly url: string; readonly seconds: number },
    { readonly deliveries: number; readonly seconds: number }
  >;
  /** Reserves a unit a number of times, with pauses. Returns the delays of the counts after the responses, ms. */
  readonly delays: Job<
    { readonly crowd: string; readonly url: string; readonly reserves: number; readonly betweenMs: number },
    { readonly delaysMs: number[] }
  >;
  /** Reserves a number of units as fast as possible, without waiting for watchers. */
  readonly reserveMany: Job<
    { readonly url: string; readonly productId: string; readonly count: number },
    undefined
  >;
  /** Lets a crowd with a small window resume reading. Resolves when all have the version. */
  readonly readOn: Job<{ readonly crowd: string; readonly version: number }, undefined>;
  readonly closeWatchers: Job<{ readonly crowd: string }, undefined>;
  /** Reserves, and optionally commits, from a number of concurrent callers. */
  readonly order: Job<
    {
      readonly url: string;
      readonly productIds: readonly string[];
      readonly callers: number;
      readonly commits: boolean;
      /** 1 unless given: neighbours in `productIds`. */
      readonly lines?: number;
      readonly seconds: number;
    },
    {
      readonly orders: number;
      readonly refused: number;
      readonly seconds: number;
      readonly latenciesMs: number[];
    }
  >;
  /**
   * Reserves at a fixed rate, whether or not earlier calls have been answered. A latency counts from the time at which the call
   * was due, so a server that pauses is charged for every call that was due meanwhile.
   */
  readonly orderAtRate: Job<
    {
      readonly url: string;
      readonly productIds: readonly string[];
      readonly perSecond: number;
      readonly seconds: number;
    },
    {
      readonly latenciesMs: number[];
      readonly refused: number;
      /** How long after it was due a call was sent, ms: what of the latencies is the generator's own. */
      readonly latenessMs: number[];
    }
  >;
  /** A flash sale: each buyer reserves one unit, and does not try again after a refusal. */
  readonly buy: Job<
    {
      readonly url: string;
      readonly productId: string;
      readonly buyers: number;
      /** Buyers whose calls are in flight at once. */
      readonly callers: number;
    },
    {
      readonly reserved: number;
      readonly refused: number;
      readonly seconds: number;
      readonly latenciesMs: number[];
    }
  >;
  /** Puts products from concurrent callers, `perCall` in each call; with 1, by PutProduct. */
  readonly putProducts: Job<
    { readonly url: string; readonly perCall: number; readonly callers: number; readonly seconds: number },
    { readonly products: number; readonly seconds: number }
  >;
  /** Calls a unary method from a number of concurrent callers, with the given frames (base64) in rotation. */
  readonly call: Job<
    {
      readonly url: string;
      readonly path: string;
      readonly frames: readonly string[];
      readonly callers: number;
      readonly seconds: number;
    },
    { readonly calls: number; readonly seconds: number; readonly latenciesMs: number[] }
  >;
}

export type JobName = keyof Jobs;

/** Connections of up to 128 callers. */
const CONNECTIONS_MIN = 8;
/**
 * Callers of one connection, on average: calls rotate over the connections, and a server closes a connection with more than
 * its 100 concurrent streams.
 */
const CALLERS_PER_CONNECTION = 16;
/** For the calls that are in flight while a server pauses: 64 × 100 streams. */
const OPEN_LOOP_CONNECTIONS = 64;
const RESERVERS = 32;
const LATENCIES_KEPT_MAX = 100_000;
const IMPORTED_PRODUCTS = 50_000;
/** 1 January 2026. */
const UPDATE_TIME_MS = 1_767_225_600_000;

interface KnownCrowd {
  readonly crowd: Crowd;
  readonly productId: string;
  readonly orders: Orders;
}

const crowds = new Map<string, KnownCrowd>();

export const JOBS: {
  readonly [Name in JobName]: (asked: Jobs[Name]["asked"]) => Promise<Jobs[Name]["answer"]>;
} = {
  async openWatchers({ crowd: name, count, ...options }) {
    const { productId } = options;
    const known = crowds.get(name) ?? { crowd: new Crowd(options), productId, orders: new Orders(productId) };
    crowds.set(name, known);
    await known.crowd.open(count);
  },

  async fanOut({ crowd: name, url, seconds }) {
    const { crowd, reserve, close } = reserverOf(name, url);
    const startedAt = performance.now();
    let deliveries = 0;
    while (secondsSince(startedAt) < seconds) {
      const arrived = crowd.arrived(crowd.leastVersion + 1);
      await reserve();
      deliveries += (await arrived).length;
    }
    close();
    return { deliveries, seconds: secondsSince(startedAt) };
  },

  async delays({ crowd: name, url, reserves, betweenMs }) {
    const { crowd, reserve, close } = reserverOf(name, url);
    const delaysMs: number[] = [];
    for (let n = 0; n < reserves; n++) {
      // Before the first one too: a watch that has just had its snapshot waits for its minimum interval.
      await pause(betweenMs);
      const arrived = crowd.arrived(crowd.leastVersion + 1);
      await reserve();
      const acknowledgedAt = performance.now();
      for (const time of await arrived) {
        delaysMs.push(Math.max(0, time - acknowledgedAt));
      }
    }
    close();
    return { delaysMs };
  },

  async reserveMany({ url, productId, count }) {
    const orders = new Orders(productId);
    const caller = new Caller(url, 1);
    let left = count;
    await atOnce(RESERVERS, async () => {
      while (left-- > 0) {
        const call = orders.reserve(orders.newId(), productId);
        await untilDone(() => caller.call(call));
      }
    });
    caller.close();
  },

  async readOn({ crowd: name, version }) {
    const { crowd } = crowdOf(name);
    crowd.readOn();
    await crowd.arrived(version);
  },

  async closeWatchers({ crowd: name }) {
    crowds.get(name)?.crowd.close();
    crowds.delete(name);
  },

  async order({ url, productIds, callers, commits, lines = 1, seconds }) {
    const orders = new Orders(productIds[0] ?? "", lines);
    const caller = new Caller(url, connectionsFor(callers));
    const startedAt = performance.now();
    let made = 0;
    let next = 0;
    let refused = 0;
    const latenciesMs: number[] = [];
    await atOnce(callers, async () => {
      while (secondsSince(startedAt) < seconds) {
        const id = orders.newId();
        const products = Array.from({ length: lines }, () => productIds[next++ % productIds.length] ?? "");
        const calls = [orders.reserve(id, ...products)];
        if (commits) {
          calls.push(orders.commit(id));
        }
        for (const call of calls) {
          const sentAt = performance.now();
          refused += await untilDone(() => caller.call(call));
          if (latenciesMs.length < LATENCIES_KEPT_MAX) {
            latenciesMs.push(performance.now() - sentAt);
          }
        }
        made += 1;
      }
    });
    caller.close();
    return { orders: made, refused, seconds: secondsSince(startedAt), latenciesMs };
  },

  async orderAtRate({ url, productIds, perSecond, seconds }) {
    const orders = new Orders(productIds[0] ?? "");
    const caller = new Caller(url, OPEN_LOOP_CONNECTIONS);
    const latenciesMs: number[] = [];
    const latenessMs: number[] = [];
    const count = Math.floor(perSecond * seconds);
    let refused = 0;
    const startedAt = performance.now();
    const dueAt = (n: number): number => startedAt + (n * 1_000) / perSecond;
    const send = async (n: number): Promise<void> => {
      const call = orders.reserve(orders.newId(), productIds[n % productIds.length] ?? "");
      latenessMs.push(performance.now() - dueAt(n));
      refused += await untilDone(() => caller.call(call));
      latenciesMs.push(performance.now() - dueAt(n));
    };
    const sent: Promise<void>[] = [];
    while (sent.length < count) {
      const now = performance.now();
      while (sent.length < count && dueAt(sent.length) <= now) {
        sent.push(send(sent.length));
      }
      // A timer of Node is due in a millisecond at the earliest.
      await pause(1);
    }
    await Promise.all(sent);
    caller.close();
    return { latenciesMs, refused, latenessMs };
  },

  async buy({ url, productId, buyers, callers }) {
    const orders = new Orders(productId);
    const caller = new Caller(url, connectionsFor(callers));
    const latenciesMs: number[] = [];
    let left = buyers;
    let refused = 0;
    const startedAt = performance.now();
    await atOnce(callers, async () => {
      while (left-- > 0) {
        const call = orders.reserve(orders.newId(), productId);
        const sentAt = performance.now();
        await caller.call(call).catch(() => {
          refused += 1;
        });
        latenciesMs.push(performance.now() - sentAt);
      }
    });
    caller.close();
    return { reserved: buyers - refused, refused, seconds: secondsSince(startedAt), latenciesMs };
  },

  async putProducts({ url, perCall, callers, seconds }) {
    const supply = createClient(SupplyService, createGrpcTransport({ baseUrl: url }));
    const startedAt = performance.now();
    let made = 0;
    await atOnce(callers, async () => {
      while (secondsSince(startedAt) < seconds) {
        const requests = Array.from({ length: perCall }, () => productRequest(++made));
        const [first] = requests;
        if (perCall === 1 && first !== undefined) {
          await supply.putProduct(first);
          continue;
        }
        const { results } = await supply.batchPutProducts({ requests });
        const failed = results.find(({ error }) => error !== undefined)?.error;
        if (failed !== undefined) {
          throw new Error(`A product was refused: ${failed.message}`);
        }
      }
    });
    return { products: made, seconds: secondsSince(startedAt) };
  },

  async call({ url, path, frames, callers, seconds }) {
    const calls = frames.map((frame) => ({ path, frame: Buffer.from(frame, "base64") }));
    const caller = new Caller(url, connectionsFor(callers));
    const latenciesMs: number[] = [];
    const startedAt = performance.now();
    let made = 0;
    await atOnce(callers, async () => {
      while (secondsSince(startedAt) < seconds) {
        const call = calls[made++ % calls.length];
        if (call === undefined) {
          throw new RangeError("No frame to send");
        }
        const sentAt = performance.now();
        await caller.call(call);
        if (latenciesMs.length < LATENCIES_KEPT_MAX) {
          latenciesMs.push(performance.now() - sentAt);
        }
      }
    });
    caller.close();
    return { calls: made, seconds: secondsSince(startedAt), latenciesMs };
  },
};

/** A product of an import that no other benchmark reads, with a text as long as many shops have. */
function productRequest(n: number) {
  return {
    productId: `imported-${n % IMPORTED_PRODUCTS}`,
    declared: n,
    product: {
      name: `Imported mug No. ${n}`,
      description: "Made of what lasts, by people who are paid for it. Washes at thirty degrees.",
      price: 5 + (n % 1_000),
      collectionId: `collection-${n % 20}`,
    },
    updateTime: timestampFromMs(UPDATE_TIME_MS + n),
  };
}

function crowdOf(name: string): KnownCrowd {
  const known = crowds.get(name);
  if (known === undefined) {
    throw new Error(`Unknown crowd ${name}`);
  }
  return known;
}

/** A crowd, and a client that reserves units of its product. */
function reserverOf(
  name: string,
  url: string,
): { readonly crowd: Crowd; readonly reserve: () => Promise<void>; readonly close: () => void } {
  const { crowd, orders, productId } = crowdOf(name);
  if (crowd.protocol === "h1") {
    // A server with HTTP/1.1 only is called in Connect's JSON.
    const reserve = async (): Promise<void> => {
      const id = orders.newId();
      await untilDone(() => orders.reserveByJson(url, id, productId));
    };
    return { crowd, reserve, close: () => {} };
  }
  const caller = new Caller(url, 1);
  const reserve = async (): Promise<void> => {
    const call = orders.reserve(orders.newId(), productId);
    await untilDone(() => caller.call(call));
  };
  return { crowd, reserve, close: () => caller.close() };
}

function connectionsFor(callers: number): number {
  return Math.min(callers, Math.max(CONNECTIONS_MIN, Math.ceil(callers / CALLERS_PER_CONNECTION)));
}

async function atOnce(count: number, work: () => Promise<void>): Promise<void> {
  await Promise.all(Array.from({ length: count }, work));
}

function secondsSince(startedAt: number): number {
  return (performance.now() - startedAt) / 1_000;
}
