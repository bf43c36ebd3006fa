import { setTimeout as wait } from "node:timers/promises";
import type { Message, Producer } from "kafkajs";
import type { Cluster } from "../../../server/kafka/kafkajs/cluster.ts";
import { type Platform, productMessage } from "../platform.ts";
import { type Codec, produceRaw, type RawRecord, record } from "../raw-producer.ts";
import type { Seller } from "../seller.ts";
import { type BadBatch, largeBad, smallBad } from "./bad-messages.ts";
import { Lock } from "./lock.ts";

/** The partition of `product` that is written in transactions only. */
const TRANSACTIONS_PARTITION = 1;
const EVENTS_PER_BATCH_MAX = 20;
const BATCH_INTERVAL_MS = 50;
const TRANSACTION_INTERVAL_MS = 250;
/** Of so many batches, one has a message of about a megabyte. */
const LARGE_EVERY = 100;
const RETRY_MS = 100;
/** An open transaction of a producer that a broker's restart has broken is aborted by the broker after this time. */
const TRANSACTION_TIMEOUT_MS = 10_000;

interface SellersOptions {
  readonly platform: Platform;
  readonly cluster: Cluster;
  readonly seller: Seller;
  readonly random: (below: number) => number;
}

/** Sends good and bad events until stopped, each until it is acknowledged, however often that fails. */
export class Sellers {
  /** Expected letters by the number in the key, and what kind of message it was. */
  readonly bad = new Map<number, Pick<BadBatch, "kind" | "reason">>();
  /** Products whose stock must be 3 at the end, although the event has a letter or its batch has one. */
  readonly partial: string[] = [];
  readonly committed: string[] = [];
  readonly aborted: string[] = [];
  readonly collections = new Map<string, string>();
  goodEvents = 0;
  batchLetters = 0;
  retries = 0;
  readonly #options: SellersOptions;
  readonly #locks = [new Lock(), new Lock()] as const;
  readonly #running: Promise<unknown>;
  #stopped = false;
  #turn = 0;
  #clockMs = Date.now() - 3_600_000;

  constructor(options: SellersOptions) {
    this.#options = options;
    this.#running = Promise.all([this.#writeUntilStopped(), this.#transactUntilStopped()]);
  }

  /** Runs an action while nothing is being sent. */
  paused<T>(action: () => Promise<T>): Promise<T> {
    const [writes, transactions] = this.#locks;
    return writes.run(() => transactions.run(action));
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    await this.#running;
  }

  async #writeUntilStopped(): Promise<void> {
    const { seller, random } = this.#options;
    while (!this.#stopped) {
      await this.#locks[0].run(async () => {
        const good = Array.from({ length: 1 + random(EVENTS_PER_BATCH_MAX) }, () => toRecord(seller.next()));
        const isLarge = this.#turn % LARGE_EVERY === LARGE_EVERY - 1;
        const bad = isLarge
          ? largeBad(this.bad.size, Math.floor(this.#turn / LARGE_EVERY))
          : smallBad(this.bad.size, random);
        this.#turn += 1;
        if (isLarge) {
          await this.#write(await this.#partition(), good, "zstd");
          await this.#write(await this.#partition(), bad.records, bad.codec);
        } else {
          const at = random(good.length + 1);
          await this.#write(await this.#partition(), good.toSpliced(at, 0, ...bad.records), bad.codec);
        }
        this.goodEvents += good.length;
        this.batchLetters += bad.batchLetters ?? 0;
        this.bad.set(this.bad.size, { kind: bad.kind, reason: bad.reason });
        if (bad.applied !== undefined) {
          this.partial.push(bad.applied);
        }
        if (this.#turn % 10 === 0) {
          await this.#writeCollection(random(20));
        }
      });
      await wait(BATCH_INTERVAL_MS);
    }
  }

  async #writeCollection(n: number): Promise<void> {
    const [id, name] = [`collection-${n}`, `name ${this.#turn}`];
    this.#clockMs += 1;
    const updatedAt = new Date(this.#clockMs).toISOString();
    await this.#until(() =>
      produceRaw(this.#options.cluster, "collection", n % 2, [record({ id, name, updatedAt })]),
    );
    this.collections.set(id, name);
    this.goodEvents += 1;
  }

  /** Any partition but the one of the transactions. */
  async #partition(): Promise<number> {
    const { cluster, random } = this.#options;
    return this.#until(async () => {
      await cluster.describeTopics(["product", "collection"]);
      const partitions = (await cluster.partitionsOf("product")).filter(
        (each) => each !== TRANSACTIONS_PARTITION,
      );
      return partitions[random(partitions.length)] ?? 0;
    });
  }

  async #write(partition: number, records: readonly RawRecord[], codec: Codec): Promise<void> {
    await this.#until(() => produceRaw(this.#options.cluster, "product", partition, records, codec));
  }

  async #until<T>(action: () => Promise<T>): Promise<T> {
    for (;;) {
      try {
        return await action();
      } catch {
        this.retries += 1;
        await wait(RETRY_MS);
      }
    }
  }

  async #transactUntilStopped(): Promise<void> {
    const { platform, random } = this.#options;
    let producer: Producer | undefined;
    const connect = async (): Promise<Producer> => {
      const connected = platform.kafka.producer({
        transactionalId: "soak",
        idempotent: true,
        maxInFlightRequests: 1,
        transactionTimeout: TRANSACTION_TIMEOUT_MS,
        retry: { retries: 5 },
      });
      await connected.connect();
      return connected;
    };
    for (let n = 0; !this.#stopped; n++) {
      const isAborted = random(2) === 0;
      const ids = Array.from(
        { length: 5 },
        (_, each) => `${isAborted ? "aborted" : "committed"}-${n}-${each}`,
      );
      await this.#locks[1].run(() =>
        this.#until(async () => {
          try {
            producer ??= await connect();
            const transaction = await producer.transaction();
            const messages = ids.map((id) => ({
              ...productMessage("Update", { id, quantity: 3 }),
              partition: TRANSACTIONS_PARTITION,
            }));
            await transaction.send({ topic: "product", messages });
            await wait(random(500));
            await (isAborted ? transaction.abort() : transaction.commit());
          } catch (error) {
            // The next producer with the same ID ends the transaction of this one.
            await producer?.disconnect().catch(() => {});
            producer = undefined;
            throw error;
          }
        }),
      );
      (isAborted ? this.aborted : this.committed).push(...ids);
      await wait(TRANSACTION_INTERVAL_MS);
    }
    await producer?.disconnect();
  }
}

function toRecord({ key, value, headers = {} }: Message): RawRecord {
  const named = Object.entries(headers).map(
    ([name, header]) => [Buffer.from(name), Buffer.from(String(header))] as const,
  );
  return record(Buffer.from(String(value)), { key: Buffer.from(String(key)), headers: named });
}
