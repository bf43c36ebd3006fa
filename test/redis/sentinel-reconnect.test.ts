import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { setImmediate as nextTurn } from "node:timers/promises";
import { pino } from "pino";
import { RedisConnection } from "../../server/redis/connection/client.ts";
import { parseAddresses } from "../../server/redis/connection/settings.ts";
import { need } from "../support/programs.ts";
import { MASTER_NAME, startFailoverGroup } from "../support/redis-failover.ts";
import { until } from "../support/until.ts";

const RECONNECTS = 60;

describe("a connection to the primary that Sentinels name", { skip: need("redis-server").missing }, () => {
  it("is opened again however often failovers are announced while it is being opened", async () => {
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
      const statuses = new Set<string>();
      for (let n = 0; n < RECONNECTS; n++) {
        statuses.add(connection.client.status);
        connection.reconnect();
        for (let turn = 0; turn <= n % 20; turn++) await nextTurn();
      }
      assert.ok(statuses.has("connecting"), [...statuses].join());
      await until(() => connection.isReady, "the connection serves");
      assert.equal(await connection.client.ping(), "PONG");
    } finally {
      connection.close();
    }
  });
});
