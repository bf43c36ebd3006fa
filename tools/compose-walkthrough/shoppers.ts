import { Agent, request } from "node:https";
import { setTimeout as sleep } from "node:timers/promises";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import {
  createConnectTransport,
  createGrpcTransport,
  createGrpcWebTransport,
} from "@connectrpc/connect-node";
import { StockService } from "../../gen/inventory/v1/stock_pb.ts";

const ORIGIN = "https://localhost";
const TIMEOUT_MS = 5_000;
const PAUSE_MS = 20;
const RECONNECT_MS = 100;
const ATTEMPTS_MAX = 30;
const RETRY_MS = 1_000;

export interface ReadsReport {
  readonly reads: number;
  /** Refused because the machine was busy (429). */
  readonly shed: number;
  readonly failed: Readonly<Record<string, number>>;
  readonly longestGapMs: number;
  /** Messages to the watch, and how often it was opened. */
  readonly messages: number;
  readonly watches: number;
}

export interface RequestOptions {
  /** Sent as JSON by POST. Without it, the request is a GET. */
  readonly body?: unknown;
  readonly headers?: Readonly<Record<string, string>>;
}

export interface Reply {
  readonly status: number;
  readonly text: string;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
}

/** The service as shoppers reach it: through the edge, whose certificate is checked. */
export class Shop {
  readonly #ca: string;
  readonly #agent: Agent;

  constructor(ca: string) {
    this.#ca = ca;
    this.#agent = new Agent({ ca, keepAlive: true });
  }

  /** One HTTP/1.1 request, repeated while the server is busy (429), as its clients do. */
  async fetchPatiently(path: string, options: RequestOptions = {}): Promise<Reply> {
    for (let attempt = 1; ; attempt++) {
      const reply = await this.fetch(path, options);
      if (reply.status !== 429 || attempt === ATTEMPTS_MAX) return reply;
      await sleep(RETRY_MS);
    }
  }

  /** One HTTP/1.1 request. */
  fetch(path: string, options: RequestOptions = {}): Promise<Reply> {
    const { body, headers = {} } = options;
    const method = body === undefined ? "GET" : "POST";
    const json = body === undefined ? {} : { "content-type": "application/json" };
    return new Promise((resolve, reject) => {
      const sent = request(
        new URL(path, ORIGIN),
        { agent: this.#agent, method, headers: { ...json, ...headers }, timeout: TIMEOUT_MS },
        (response) => {
          let text = "";
          response.setEncoding("utf8").on("data", (part: string) => {
            text += part;
          });
          response.once("end", () =>
            resolve({ status: response.statusCode ?? 0, text, headers: response.headers }),
          );
          response.once("error", reject);
        },
      );
      sent.once("timeout", () => sent.destroy(new Error("timeout")));
      sent.once("error", reject);
      sent.end(body === undefined ? undefined : JSON.stringify(body));
    });
  }

  /** A client of StockService for each of the three protocols. */
  clients() {
    const nodeOptions = { ca: this.#ca };
    const connect = createConnectTransport({
      baseUrl: ORIGIN,
      httpVersion: "2",
      useHttpGet: true,
      useBinaryFormat: false,
      nodeOptions,
    });
    return {
      Connect: createClient(StockService, connect),
      gRPC: createClient(StockService, createGrpcTransport({ baseUrl: ORIGIN, nodeOptions })),
      "gRPC-Web": createClient(
        StockService,
        createGrpcWebTransport({ baseUrl: ORIGIN, httpVersion: "1.1", nodeOptions }),
      ),
    };
  }

  /** Reads the page and a product, and keeps a watch open, until the returned object is ended. */
  startReads(productId: string): Reads {
    return new Reads(this, productId);
  }
}

/** Shoppers' reads; they run until `end`. */
export class Reads {
  readonly #shop: Shop;
  readonly #productId: string;
  readonly #abort = new AbortController();
  readonly #done: Promise<unknown>;
  #reads = 0;
  #shed = 0;
  #failed: Record<string, number> = {};
  #longestGapMs = 0;
  #lastAt = performance.now();
  #messages = 0;
  #watches = 0;

  constructor(shop: Shop, productId: string) {
    this.#shop = shop;
    this.#productId = productId;
    const clients = shop.clients();
    this.#done = Promise.all([
      this.#repeat(async () => {
        expectOk("page", await shop.fetch("/"));
      }),
      this.#repeat(() => clients.Connect.getStock({ productId }, { timeoutMs: TIMEOUT_MS })),
      this.#repeat(async () => {
        const message = encodeURIComponent(JSON.stringify({ productId }));
        const path = `/inventory.v1.StockService/GetStock?connect=v1&encoding=json&message=${message}`;
        expectOk("GetStock", await shop.fetch(path));
      }),
      this.#watch(),
    ]);
  }

  /** What happened since the last report. */
  report(): ReadsReport {
    const report = {
      reads: this.#reads,
      shed: this.#shed,
      failed: this.#failed,
      longestGapMs: Math.max(this.#longestGapMs, performance.now() - this.#lastAt),
      messages: this.#messages,
      watches: this.#watches,
    };
    [this.#reads, this.#shed, this.#failed, this.#longestGapMs] = [0, 0, {}, 0];
    [this.#messages, this.#watches] = [0, 0];
    return report;
  }

  /** Resolves when the watch has received a message. */
  async watching(): Promise<void> {
    const before = this.#messages;
    while (this.#messages === before) await sleep(PAUSE_MS);
  }

  async end(): Promise<void> {
    this.#abort.abort();
    await this.#done;
  }

  async #repeat(read: () => Promise<unknown>): Promise<void> {
    for (; !this.#abort.signal.aborted; await sleep(PAUSE_MS)) {
      try {
        await read();
        const now = performance.now();
        this.#longestGapMs = Math.max(this.#longestGapMs, now - this.#lastAt);
        this.#lastAt = now;
        this.#reads++;
      } catch (error) {
        if (ConnectError.from(error).code === Code.ResourceExhausted) {
          this.#shed++;
          continue;
        }
        const kind = error instanceof Error ? (error.message.split("\n")[0] ?? "") : String(error);
        this.#failed[kind] = (this.#failed[kind] ?? 0) + 1;
      }
    }
  }

  async #watch(): Promise<void> {
    const client = this.#shop.clients()["gRPC-Web"];
    const { signal } = this.#abort;
    while (!signal.aborted) {
      try {
        this.#watches++;
        for await (const _ of client.watchStock({ productIds: [this.#productId] }, { signal })) {
          this.#messages++;
        }
      } catch {
        // The connection ended; as the page does, open another one.
      }
      if (!signal.aborted) await sleep(RECONNECT_MS);
    }
  }
}

function expectOk(what: string, { status }: Reply): void {
  if (status === 429) throw new ConnectError(what, Code.ResourceExhausted);
  if (status !== 200) throw new Error(`${what} ${status}`);
}
