import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { join } from "node:path";
import { after, before, beforeEach, describe, it } from "node:test";
import { Redis } from "ioredis";
import { pino } from "pino";
import { openRedis } from "../../server/redis/copy/clients.ts";
import { compare } from "../../server/redis/copy/compare.ts";
import { copyLedger } from "../../server/redis/copy/copy-ledger.ts";
import { CopyRefusedError, Source } from "../../server/redis/copy/source.ts";
import { Target } from "../../server/redis/copy/target.ts";
import { BUCKETS_DEFAULT, Keys } from "../../server/redis/keys.ts";
import { RedisOutbox } from "../../server/redis/outbox.ts";
import { RedisStore } from "../../server/redis/store.ts";
import { need } from "../support/programs.ts";
import { type RedisServer, startRedis } from "../support/redis-server.ts";
import { until } from "../support/until.ts";
import {
  fill,
  goesOn,
  HOUR_MS,
  observe,
  openStore,
  order,
  productAt,
  publishAll,
  toLayoutTwo,
} from "./copied-ledger.ts";
import { auditLedgers, dumpRecords } from "./ledger-audit.ts";

const log = pino({ level: "silent" });
const TOOL = join(import.meta.dirname, "../../tools/copy-ledger.ts");

describe("copy-ledger", { skip: need("redis-server").missing }, () => {
  let from: RedisServer;
  let to: RedisServer;
  let source: Redis;
  let target: Redis;
  let observed: unknown;
  let printed: string[] = [];

  before(async () => {
    const options = { appendonly: "no", args: ["--repl-diskless-sync-delay", "0"] } as const;
    [from, to] = await Promise.all([startRedis(options), startRedis(options)]);
    [source, target] = [new Redis(from.url), new Redis(to.url)];
    const store = await openStore(from.url, BUCKETS_DEFAULT);
    await fill(store);
    observed = await observe(store);
    await store.close();
    await publishAll(from.url);
  });
  after(async () => {
    source?.disconnect();
    target?.disconnect();
    await Promise.all([from?.stop(), to?.stop()]);
  });
  beforeEach(async () => {
    await target.flushall();
    printed = [];
  });

  interface Given {
    readonly buckets?: number;
    readonly dryRun?: boolean;
    readonly force?: boolean;
    readonly discardUnpublished?: boolean;
  }

  async function copy({
    buckets = 16,
    dryRun = false,
    force = false,
    discardUnpublished = false,
  }: Given = {}) {
    const clients = await Promise.all([openRedis(from.url), openRedis(to.url)]);
    try {
      return await copyLedger({
        source: await Source.open(clients[0]),
        target: dryRun ? undefined : new Target(clients[1], buckets),
        force,
        discardUnpublished,
        print: (line) => printed.push(line),
      });
    } finally {
      for (const client of clients) client.disconnect();
    }
  }

  /** Compares source and target as they are, and returns the differences. */
  async function differences(buckets: number): Promise<readonly string[]> {
    const clients = await Promise.all([openRedis(from.url), openRedis(to.url)]);
    try {
      const result = await compare(await Source.open(clients[0]), new Target(clients[1], buckets));
      return result.differences.kept;
    } finally {
      for (const client of clients) client.disconnect();
    }
  }

  const refused = (text: RegExp) => (error: unknown) =>
    error instanceof CopyRefusedError && text.test(error.message);

  for (const [layout, buckets] of [
    [3, 1],
    [3, 256],
    [2, 8],
  ] as const) {
    it(`copies layout ${layout} to ${buckets} buckets: callers see the same, and go on`, async () => {
      const backup = await Promise.all(
        (await source.keys("*")).map(
          async (key) => [key, await source.dumpBuffer(key), await source.pttl(key)] as const,
        ),
      );
      if (layout === 2) await toLayoutTwo(source);
      const before = await dumpRecords(source);
      try {
        assert.equal(await copy({ buckets }), true, printed.join("\n"));
      } finally {
        assert.equal(await dumpRecords(source), before, "the source is only read");
        await source.flushall();
        for (const [key, dump, ttl] of backup) await source.restore(key, Math.max(0, ttl), dump ?? "");
      }
      assert.ok(printed.includes("0 differences"), printed.join("\n"));
      assert.equal(await target.hget("{b00}:layout", "version"), "3");
      const store = await openStore(to.url, buckets);
      try {
        assert.deepEqual(await observe(store), observed);
        await goesOn(store, layout);
        const faults = await auditLedgers(target);
        // The streams start empty, so that the audit knows the versions only of what has changed since.
        assert.deepEqual(
          faults.filter((fault) => !/reservations and stream say \d+,\d+,0$/.test(fault)),
          [],
        );
      } finally {
        await store.close();
      }
    });
  }

  it("says which operations of layout 2 it does not copy, and what follows", async () => {
    const dump = await source.dumpBuffer("{b00}:layout");
    const saved = await source.keys("{b*}:op:*");
    const values = await Promise.all(saved.map((key) => source.dumpBuffer(key)));
    await toLayoutTwo(source);
    assert.equal(await copy({ dryRun: true }), true, printed.join("\n"));
    for (const key of await source.keys("{b*}:op:*")) await source.del(key);
    for (const [index, key] of saved.entries()) await source.restore(key, 24 * HOUR_MS, values[index] ?? "");
    await source.restore("{b00}:layout", 0, dump ?? "", "REPLACE");
    // Those of 40 products share an ID that layout 2 did not allow, and 10 counts corrected nothing.
    const line = printed.find((each) => each.includes("operations are not copied")) ?? "";
    assert.match(line, /11 operations.*10 counts, 1 adjustments, 0 returns.*executes it again/);
  });

  it("writes nothing in a dry run, and reports what the source holds", async () => {
    assert.equal(await copy({ dryRun: true }), true);
    assert.equal(await target.dbsize(), 0);
    for (const row of [
      /^products +40$/,
      /^reservations active +10$/,
      /^deadlines +10$/,
      /^collections +2$/,
    ]) {
      assert.ok(
        printed.some((line) => row.test(line)),
        `${row} in\n${printed.join("\n")}`,
      );
    }
  });

  const faults: readonly [string, (keys: Keys) => [string, (key: string) => Promise<unknown>], RegExp][] = [
    [
      "a ledger with another number of reserved units",
      (k) => [k.ledger(productAt(1)), (key) => source.hincrby(key, "H", 3)],
      /reserved/,
    ],
    [
      "a ledger without a field",
      (k) => [k.ledger(productAt(1)), (key) => source.hdel(key, "S")],
      /field S is null/,
    ],
    [
      "a ledger of another type",
      (k) => [k.ledger(productAt(1)), (key) => source.del(key).then(() => source.set(key, "x"))],
      /WRONGTYPE/,
    ],
    [
      "a reservation that is no JSON",
      (k) => [k.reservation(order("active", 1)), (key) => source.set(key, "{")],
      /JSON/,
    ],
    [
      "a missing reservation",
      (k) => [k.reservation(order("active", 1)), (key) => source.del(key)],
      /reserved 2 units more than/,
    ],
    [
      "a key in the bucket of another name",
      () => ["{b00}:p:elsewhere", (key) => source.copy(new Keys(8).ledger(productAt(1)), key)],
      /another bucket/,
    ],
    ["a key of no known kind", () => ["{b00}:z:1", (key) => source.set(key, "1")], /not a key of layout 3/],
  ];
  for (const [name, fault, text] of faults) {
    it(`refuses a source with ${name}, and writes nothing`, async () => {
      const [key, damage] = fault(new Keys(BUCKETS_DEFAULT));
      const dump = await source.dumpBuffer(key);
      await damage(key);
      try {
        assert.equal(await copy(), false);
        assert.equal(await target.dbsize(), 0);
        assert.ok(
          printed.some((line) => line.startsWith("fault: ") && text.test(line)),
          printed.join("\n"),
        );
      } finally {
        await (dump === null ? source.del(key) : source.restore(key, 0, dump, "REPLACE"));
      }
    });
  }

  it("finds every difference between source and target", async () => {
    assert.equal(await copy(), true);
    assert.deepEqual(await differences(16), []);
    const k = new Keys(16);
    const bucket = (n: number) => k.bucketOf(productAt(n));
    const active = order("active", 8);
    const changes: readonly [Promise<unknown>, RegExp][] = [
      [target.hincrby(k.ledger(productAt(11)), "D", 1), /^ledger of product "sku-11"/],
      [
        target.hincrby(k.ledger(productAt(12)), "H", 1),
        /^product "sku-12": the ledger has reserved 1 units more/,
      ],
      [target.del(k.ledger(productAt(13))), /^ledger of product "sku-13"/],
      [target.hset(k.ledger("more"), "D", "1"), /^number of ledgers/],
      [target.srem(k.products(bucket(15)), productAt(15)), /^entry of product "sku-15"/],
      [target.set(k.details(productAt(16)), "[]"), /^details of product "sku-16"/],
      [target.xtrim(k.history(productAt(17)), "MAXLEN", 1), /^history of product "sku-17"/],
      [target.del(k.history(productAt(18))), /^history of product "sku-18"/],
      [target.del(k.reservation(order("released", 2))), /^reservation "order:released-2"/],
      [target.persist(k.reservation(order("released", 3))), /^expiry of reservation "order:released-3"/],
      [target.zadd(k.deadlines(k.bucketOf(active)), 1, active), /^deadline of reservation "order:active-8"/],
      [target.del(k.operation("count", productAt(2), "count-2")), /^operation ".*count-2"/],
      [target.del(k.reference(bucket(3), "count-3")), /^reference ".*count-3"/],
      [target.hdel(k.collections(), "dark"), /^collections/],
      [target.set("{b15}:r:more", "{}"), /^key "{b15}:r:more": another bucket/],
    ];
    for (const [change] of changes) await change;
    const found = await differences(16);
    for (const [, text] of changes) {
      assert.ok(
        found.some((each) => text.test(each)),
        `${text} in\n${found.join("\n")}`,
      );
    }
  });

  /** Whether the publishers of the target send the newest states first, in every bucket. */
  async function isSnapshotDue(): Promise<boolean> {
    const outbox = new RedisOutbox({ endpoint: { url: to.url }, keys: new Keys(16), log });
    try {
      const found = new Set<boolean | undefined>();
      for (let bucket = 0; bucket < 16; bucket++) {
        const lease = await until(
          () => outbox.acquire(bucket, "test", HOUR_MS).catch(() => undefined),
          "the outbox is connected",
        );
        found.add((await outbox.read(lease, 10))?.snapshotDue);
      }
      assert.equal(found.size, 1);
      return found.has(true);
    } finally {
      await outbox.close();
    }
  }

  it("refuses unpublished changes unless they may be discarded, and has every state published then", async () => {
    const key = `{b03}:outbox`;
    const cursor = await source.hget(key, "count");
    await source.hincrby(key, "count", -3);
    await assert.rejects(copy(), refused(/3 changes are unpublished/));
    assert.equal(await target.dbsize(), 0);
    assert.equal(await copy({ discardUnpublished: true }), true);
    await source.hset(key, "count", cursor ?? "");
    assert.equal(await isSnapshotDue(), true);
    await target.flushall();
    assert.equal(await copy(), true);
    assert.equal(await isSnapshotDue(), false);
  });

  it("refuses while servers are connected, unless forced", async () => {
    const store = await openStore(from.url, BUCKETS_DEFAULT);
    try {
      await assert.rejects(copy(), refused(/connected to the source \(inventory-/));
      assert.equal(await copy({ force: true }), true);
    } finally {
      await store.close();
    }
  });

  it("refuses a target that is not empty, and leaves other services' keys", async () => {
    await target.set("counter", "1");
    assert.equal(await copy(), true);
    assert.equal(await target.get("counter"), "1");
    await assert.rejects(copy(), refused(/target is not empty/));
  });

  it("refuses a replica and another layout", async () => {
    await target.replicaof("127.0.0.1", from.port);
    await until(
      async () => (await target.info("replication")).includes("master_link_status:up"),
      "a replica",
    );
    await assert.rejects(Source.open(target), refused(/is a replica/));
    await target.replicaof("NO", "ONE");
    await target.hset("{b00}:layout", "version", "1");
    await assert.rejects(Source.open(target), refused(/key layout 1; the layouts 2 and 3/));
  });

  it("leaves a target that servers refuse until the copy is complete, and so they do with layout 2", async () => {
    for (const [version, reason] of [
      ["unfinished copy", /unfinished copy of a ledger/],
      ["2", /layout 2.*npm run copy-ledger/],
    ] as const) {
      await target.hset("{b00}:layout", { version, buckets: "8", data: "d" });
      const store = new RedisStore({ endpoint: { url: to.url }, log });
      await assert.rejects(store.start(5_000), reason);
      await store.close();
    }
  });

  it("runs as a command: a dry run, a copy, wrong options", async () => {
    const run = (...args: string[]) =>
      new Promise<{ code: unknown; stdout: string; stderr: string }>((resolve) => {
        execFile(process.execPath, [TOOL, ...args], (error, stdout, stderr) =>
          resolve({ code: error?.code ?? 0, stdout, stderr }),
        );
      });
    const dry = await run("--from", from.url, "--dry-run");
    assert.match(dry.stdout, /^products +40$/m);
    assert.equal(dry.code, 0, dry.stderr);
    const copied = await run("--from", from.url, "--to", to.url, "--buckets", "12");
    assert.match(copied.stdout, /^units reserved +30 +30$/m);
    assert.equal(copied.code, 0, copied.stderr);
    assert.deepEqual(await target.hmget("{b00}:layout", "version", "buckets"), ["3", "12"]);
    const again = await run("--from", from.url, "--to", to.url);
    assert.match(again.stderr, /not empty/);
    assert.equal(again.code, 1);
    for (const [args, text] of [
      [["--to", to.url], /--from is missing/],
      [["--from", from.url], /one of --to and --to-cluster/],
      [
        ["--from", from.url, "--to", to.url, "--buckets", "257"],
        /--buckets is 257; give a whole number from 1 to 256/,
      ],
      [["--from", from.url, "--nonsense"], /nonsense/],
    ] as const) {
      const { code, stderr } = await run(...args);
      assert.match(stderr, text);
      assert.equal(code, 2);
    }
  });
});
