import assert from "node:assert/strict";
import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { connect, createServer, type Server, type Socket } from "node:net";
import { after, before, describe, it } from "node:test";
import { setImmediate as turn } from "node:timers/promises";
import { promisify } from "node:util";
import { Redis } from "ioredis";
import { Kafka, logLevel } from "kafkajs";
import { freePort } from "./free-port.ts";
import { type KafkaBroker, startKafka } from "./kafka-broker.ts";
import { need } from "./programs.ts";
import { type RedisServer, startRedis } from "./redis-server.ts";
import { startTcpProxy, type TcpProxy } from "./tcp-proxy.ts";
import { until } from "./until.ts";

const run = promisify(execFile);
const redisNeed = need("redis-server");
const kafkaNeed = need("own-kafka");

/** Runs an action with a client that neither retries nor reconnects, and closes the client. */
async function withRedis<T>(server: RedisServer, action: (client: Redis) => Promise<T>): Promise<T> {
  const client = new Redis(server.url, {
    retryStrategy: () => null,
    maxRetriesPerRequest: 0,
    // Otherwise a client with a broken connection keeps the process alive for 2 s after disconnect().
    disconnectTimeout: 100,
  });
  client.on("error", () => undefined);
  try {
    return await action(client);
  } finally {
    client.disconnect();
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

function isRefused(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect({ port, host: "127.0.0.1" }, () => {
      socket.destroy();
      resolve(false);
    });
    socket.once("error", () => resolve(true));
  });
}

describe("until", () => {
  it("returns the value of the condition, whatever errors came before", async () => {
    let calls = 0;
    const answer = await until(() => {
      calls += 1;
      if (calls === 1) throw new Error("not yet");
      return calls === 3 && "done";
    }, "the third call");
    assert.equal(answer, "done");
  });

  it("names the condition, the timeout and the last error if it fails", async () => {
    const failing = until(() => Promise.reject(new Error("no stock")), "stock has come", 30);
    await assert.rejects(failing, /Timed out after 30 ms waiting until stock has come: no stock/);
  });

  it("rejects if the condition itself hangs", async () => {
    const hanging = until(() => new Promise<boolean>(() => undefined), "a silent server speaks", 30);
    await assert.rejects(hanging, /until a silent server speaks: the condition has not answered/);
  });
});

describe("freePort", () => {
  const PORTS = 100;

  it("gives each port once, also across processes", async () => {
    const script = `
      const { freePort } = await import(${JSON.stringify(import.meta.resolve("./free-port.ts"))});
      for (let n = 0; n < ${PORTS}; n++) console.log(await freePort());`;
    const ports: number[] = [];
    for (let n = 0; n < PORTS; n++) ports.push(await freePort());
    const { stdout } = await run(process.execPath, ["--input-type=module", "-e", script]);
    ports.push(...stdout.trim().split("\n").map(Number));
    assert.equal(ports.length, 2 * PORTS);
    assert.equal(new Set(ports).size, ports.length);
  });
});

describe("startRedis", { skip: redisNeed.missing }, () => {
  it("keeps an acknowledged write over kill -9 and restart", async () => {
    await using server = await startRedis();
    assert.equal(await withRedis(server, (client) => client.set("p1", "5")), "OK");
    const { pid } = server;
    await server.kill9();
    assert.equal(isAlive(pid), false);
    await assert.rejects(withRedis(server, (client) => client.get("p1")));
    await server.restart();
    assert.notEqual(server.pid, pid);
    assert.equal(await withRedis(server, (client) => client.get("p1")), "5");
  });

  it("does not respond while paused", async () => {
    await using server = await startRedis({ appendonly: "no" });
    await withRedis(server, async (client) => {
      assert.equal(await client.ping(), "PONG");
      server.pause();
      let answered = false;
      const pong = client.ping().then(() => {
        answered = true;
      });
      await until(() => client.commandQueue.length === 1, "the command is under way");
      assert.equal(answered, false);
      server.resume();
      await pong;
    });
  });

  it("uses another port if the first is taken, and leaves no files", async () => {
    await using first = await startRedis({ appendonly: "no" });
    await assert.rejects(startRedis({ port: first.port }), /address already in use/i);
    const second = await startRedis({ args: ["--maxmemory", "10mb"] });
    assert.notEqual(second.port, first.port);
    assert.deepEqual(await withRedis(second, (client) => client.config("GET", "maxmemory")), [
      "maxmemory",
      "10485760",
    ]);
    await second.stop();
    assert.equal(isAlive(second.pid), false);
    assert.equal(existsSync(second.dir), false);
  });

  it("ends with its parent, even after kill -9", async () => {
    const script = `
      const { startRedis } = await import(${JSON.stringify(import.meta.resolve("./redis-server.ts"))});
      const { port, dir } = await startRedis();
      process.stdout.write(JSON.stringify({ port, dir }));
      setInterval(() => {}, 1000);`;
    const parent = spawn(process.execPath, ["--input-type=module", "-e", script], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    const [output] = (await once(parent.stdout, "data")) as [Buffer];
    const orphan = JSON.parse(output.toString()) as { port: number; dir: string };
    assert.equal(await isRefused(orphan.port), false);
    parent.kill("SIGKILL");
    // Checked by its port: until PID 1 has reaped it, the dead process still has its ID.
    await until(() => isRefused(orphan.port), "the server is gone too");
    await until(() => !existsSync(orphan.dir), "its folder is gone too");
  });
});

describe("the TCP proxy", () => {
  let echo: Server;
  let proxy: TcpProxy;
  let received = "";
  const clients = new Set<Socket>();

  before(async () => {
    echo = createServer((socket) => {
      socket.on("error", () => undefined);
      socket.on("data", (chunk) => {
        received += chunk.toString();
        socket.write(chunk);
      });
    });
    echo.listen(0, "127.0.0.1");
    await once(echo, "listening");
    const address = echo.address();
    assert(address !== null && typeof address === "object");
    proxy = await startTcpProxy({ target: { port: address.port } });
  });

  after(async () => {
    for (const client of clients) client.destroy();
    await proxy.close();
    echo.close();
  });

  async function dialProxy(): Promise<{ socket: Socket; text: () => string; closed: () => boolean }> {
    const socket = connect({ port: proxy.port, host: proxy.host });
    clients.add(socket);
    let text = "";
    let closed = false;
    socket.setEncoding("utf8");
    socket.on("data", (chunk: string) => {
      text += chunk;
    });
    socket.on("error", () => undefined);
    socket.on("close", () => {
      closed = true;
    });
    await once(socket, "connect");
    return { socket, text: () => text, closed: () => closed };
  }

  it("forwards both directions, and drops closed connections", async () => {
    const client = await dialProxy();
    client.socket.write("hello");
    await until(() => client.text() === "hello", "the echo is here");
    assert.equal(proxy.connections(), 1);
    client.socket.end();
    await until(() => client.closed() && proxy.connections() === 0, "both sides are closed");
  });

  it("cut resets open connections and refuses new ones; pass listens on the same port again", async () => {
    const client = await dialProxy();
    await proxy.cut();
    await until(client.closed, "the open connection is reset");
    await assert.rejects(dialProxy(), { code: "ECONNREFUSED" });
    await proxy.pass();
    const next = await dialProxy();
    next.socket.write("again");
    await until(() => next.text() === "again", "the echo is here");
    next.socket.destroy();
  });

  it("freeze accepts and holds bytes; pass then delivers them", async () => {
    const before = await dialProxy();
    await proxy.freeze();
    received = "";
    const during = await dialProxy();
    before.socket.write("a");
    during.socket.write("b");
    await assert.rejects(until(() => received !== "", "a byte has come through", 150));
    assert.equal(before.closed() || during.closed(), false);
    await proxy.pass();
    await until(() => before.text() === "a" && during.text() === "b", "the held bytes came back");
    before.socket.destroy();
    during.socket.destroy();
  });

  it("delay adds its time in each direction, once for bytes sent together", async () => {
    const client = await dialProxy();
    const letters = "abcde".repeat(40);
    await proxy.delay(60);
    const startMs = performance.now();
    for (const letter of letters) {
      client.socket.write(letter);
      await turn();
    }
    await until(() => client.text() === letters, "the echo is here");
    const tookMs = performance.now() - startMs;
    await proxy.pass();
    // In sequence they would take 12 s on any machine.
    assert(tookMs >= 118 && tookMs < 8_000, `two ways of 60 ms took ${tookMs} ms`);
    client.socket.destroy();
  });

  it("throttle limits the bytes per second", async () => {
    const client = await dialProxy();
    await proxy.throttle(20_000);
    const startMs = performance.now();
    client.socket.write("x".repeat(4_000));
    await until(() => client.text().length === 4_000, "the echo is here");
    const tookMs = performance.now() - startMs;
    await proxy.pass();
    assert(tookMs >= 195, `4,000 bytes at 20,000 a second took ${tookMs} ms`);
    client.socket.destroy();
  });

  it("dropReplies forwards requests and discards responses; leaving it resets those connections", async () => {
    const client = await dialProxy();
    await proxy.dropReplies();
    received = "";
    const droppedBefore = proxy.droppedBytes();
    client.socket.write("write");
    await until(() => proxy.droppedBytes() === droppedBefore + 5, "the reply was thrown away");
    assert.equal(received, "write");
    assert.equal(client.text(), "");
    await proxy.pass();
    await until(client.closed, "the connection that lost a reply is reset");
  });

  it("cutAfterRequest breaks one connection between a request and its response", async () => {
    const [bystander, victim] = [await dialProxy(), await dialProxy()];
    received = "";
    const cut = proxy.cutAfterRequest((chunk) => chunk.includes("buy"));
    bystander.socket.write("look");
    await until(() => bystander.text() === "look", "the other connection still works");
    victim.socket.write("buy");
    await cut;
    await until(victim.closed, "the connection is reset");
    assert.equal(received, "lookbuy");
    assert.equal(victim.text(), "");
    assert.equal(bystander.closed(), false);
    bystander.socket.destroy();
  });

  it("shows how ioredis handles a lost reply", { skip: redisNeed.missing }, async () => {
    await using server = await startRedis();
    await using line = await startTcpProxy({ target: server });
    const client = new Redis(line.url("redis"), {
      maxRetriesPerRequest: 0,
      enableOfflineQueue: false,
      lazyConnect: true,
    });
    client.on("error", () => undefined);
    await client.connect();
    const cut = line.cutAfterRequest((chunk) => chunk.includes("incr"));
    await assert.rejects(client.incr("counter"));
    await cut;
    client.disconnect();
    assert.equal(await withRedis(server, (direct) => direct.get("counter")), "1");
  });
});

describe("startKafka", { skip: kafkaNeed.missing, timeout: 240_000 }, () => {
  let broker: KafkaBroker;

  before(async () => {
    broker = await startKafka({ own: true, topics: { product: 3 } });
  });

  after(() => broker?.stop());

  function client(): Kafka {
    return new Kafka({ clientId: "harness", brokers: broker.brokers, logLevel: logLevel.NOTHING });
  }

  it("creates the given topics once, and no others", async () => {
    await broker.createTopic("inventory", 2);
    await broker.createTopic("inventory", 2);
    const admin = client().admin({ retry: { retries: 0 } });
    await admin.connect();
    try {
      assert.deepEqual((await admin.listTopics()).sort(), ["inventory", "product"]);
      const { topics } = await admin.fetchTopicMetadata({ topics: ["inventory"] });
      assert.equal(topics[0]?.partitions.length, 2);
      await assert.rejects(admin.fetchTopicMetadata({ topics: ["unknown"] }));
    } finally {
      await admin.disconnect();
    }
  });

  it("keeps acknowledged messages and offsets over kill -9 and restart", async () => {
    const keys = Array.from({ length: 30 }, (_, index) => `sku-${index}`);
    const producer = client().producer();
    await producer.connect();
    await producer.send({ topic: "product", acks: -1, messages: keys.map((key) => ({ key, value: key })) });
    await producer.disconnect();

    const { pid } = broker;
    await broker.kill9();
    assert.equal(isAlive(pid), false);
    await broker.restart();
    assert.notEqual(broker.pid, pid);

    const received = new Set<string>();
    // A consumer's disconnect waits for its last fetch, which by default waits 5 s for messages.
    const consumer = client().consumer({ groupId: "harness", maxWaitTimeInMs: 100 });
    try {
      await consumer.connect();
      await consumer.subscribe({ topic: "product", fromBeginning: true });
      await consumer.run({
        eachMessage: async ({ message }) => {
          received.add(String(message.key));
        },
      });
      await until(() => received.size === keys.length, "all messages are consumed", 20_000);
    } finally {
      await consumer.disconnect();
    }
    assert.deepEqual([...received].sort(), keys.toSorted());
  });
});
