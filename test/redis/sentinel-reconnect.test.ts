import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { setImmediate as nextTurn } from "node:timers/promises";
import { pino } from "pino";
import { RedisConnection } from "../../server/redis/connection/client.ts";
import { parseAddresses } from "../../server/redis/connection/settings.ts";
import { need } from "../support/programs.ts";
import { MASTER_NAME, startFailoverGroup } from "../support/redis-failover.ts";
import { until } from "../support/until.ts";

/** Asking a Sentinel takes fewer turns of the event loop than this. */
const TURNS_MAX = 12;

describe("a connection to the primary that Sentinels name", { skip: need("redis-server").missing }, () => {
  it("is opened again if a failover is announced while it is being opened", async () => {
    await using group = await startFailoverGroup({ replicas: 1 });
    const sentinel = {
      addresses: parseAddresses(group.sentinels),
      masterName: MASTER_NAME,
      password: undefined,
      tls: false,
    };
    const connection = new RedisConnection("test", { sentinel }, pino({ level: "silent" }));
    try {
      await connection.firstReady;
      for (let turns = 0; turns < TURNS_MAX; turns++) {
        // Not by events.once: an error in between is expected.
        const connecting = new Promise<void>((resolve) =>
          connection.client.once("connecting", () => resolve()),
        );
        connection.reconnect();
        await connecting;
        for (let turn = 0; turn < turns; turn++) await nextTurn();
        connection.reconnect();
        await until(() => connection.isReady, `it serves after a failover ${turns} turns after another one`);
      }
      assert.equal(await connection.client.ping(), "PONG");
    } finally {
      connection.close();
    }
  });
});
