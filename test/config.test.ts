import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { type Config, ConfigError, readConfig } from "../server/config.ts";

function faultsOf(environment: NodeJS.ProcessEnv): string[] {
  try {
    readConfig(environment);
  } catch (error) {
    assert.ok(error instanceof ConfigError, String(error));
    return error.message.split("\n");
  }
  return [];
}

describe("readConfig", () => {
  it("has a default for every setting", () => {
    const config = readConfig({});
    const expected: Partial<Config> = {
      host: "127.0.0.1",
      port: 8080,
      redis: undefined,
      tls: undefined,
      logLevel: "info",
      logFormat: "auto",
      demo: true,
      demoReserve: true,
      buckets: 8,
      changesKept: 100,
      operationRetentionMs: 24 * 3_600_000,
      drainWaitMs: 0,
      drainMsMax: 10_000,
    };
    assert.partialDeepStrictEqual(config, expected);
    assert.ok(Object.isFrozen(config));
  });

  it("treats an empty variable as unset", () => {
    const empty = { HOST: "", PORT: "", REDIS_URL: "", REDIS_HOST: "", TLS_CERT: "", TLS_KEY: "", DEMO: "" };
    assert.deepEqual(readConfig(empty), readConfig({}));
  });

  const ACCEPTED: readonly [NodeJS.ProcessEnv, Partial<Config>][] = [
    [{ HOST: "0.0.0.0", AUTH: "off" }, { host: "0.0.0.0" }],
    [{ PORT: "0" }, { port: 0 }],
    [{ PORT: "65535" }, { port: 65_535 }],
    [
      { REDIS_URL: "redis://r:6380/1" },
      { redis: { url: "redis://r:6380/1", password: undefined }, demo: false },
    ],
    [{ REDIS_URL: "rediss://u:p@r" }, { redis: { url: "rediss://u:p@r", password: undefined } }],
    [{ REDIS_URL: "redis://r", REDIS_PASSWORD: "p" }, { redis: { url: "redis://r", password: "p" } }],
    [{ REDIS_HOST: "r" }, { redis: { url: "redis://r:6379", password: undefined }, demo: false }],
    [
      { REDIS_HOST: "r", REDIS_PORT: "65535", REDIS_PASSWORD: "p@:/" },
      { redis: { url: "redis://r:65535", password: "p@:/" } },
    ],
    [{ REDIS_HOST: "::1" }, { redis: { url: "redis://[::1]:6379", password: undefined } }],
    [{ REDIS_URL: "redis://a", REDIS_HOST: "b" }, { redis: { url: "redis://a", password: undefined } }],
    [
      { LOG_LEVEL: "silent", LOG_FORMAT: "pretty" },
      { logLevel: "silent", logFormat: "pretty" },
    ],
    [
      { DEMO: "on", REDIS_HOST: "r" },
      { demo: true, demoReserve: false },
    ],
    [
      { DEMO: "on", DEMO_RESERVE: "off" },
      { demo: true, demoReserve: false },
    ],
    [{ DEMO_RESERVE: "on" }, { demo: true, demoReserve: true }],
    [
      { DEMO_RESERVE: "off", REDIS_HOST: "r" },
      { demo: false, demoReserve: false },
    ],
    [{ SHOP_NAME: "日本 & Söhne" }, { demo: true }],
    [{ DEMO: "true" }, { demo: true }],
    [{ DEMO: "1" }, { demo: true }],
    [{ DEMO: "off" }, { demo: false, demoReserve: false }],
    [{ DEMO: "false" }, { demo: false }],
    [{ DEMO: "0" }, { demo: false }],
    [
      { TRUSTED_PROXIES: "192.0.2.7, 10.0.0.0/8,fd00::/8" },
      { trustedProxies: ["192.0.2.7", "10.0.0.0/8", "fd00::/8"] },
    ],
    [
      { REDIS_CLUSTER: "a:6379, [fd00::1]:6380", REDIS_USERNAME: "u", REDIS_PASSWORD: "p", REDIS_TLS: "on" },
      {
        buckets: 64,
        redis: {
          password: "p",
          cluster: {
            addresses: [
              { host: "a", port: 6379 },
              { host: "fd00::1", port: 6380 },
            ],
            username: "u",
            tls: true,
          },
        },
      },
    ],
    [{ REDIS_CLUSTER: "a:6379", INVENTORY_BUCKETS: "8" }, { buckets: 8 }],
    [{ REDIS_URL: "redis://r" }, { buckets: 8 }],
    [{ INVENTORY_BUCKETS: "1" }, { buckets: 1 }],
    [{ INVENTORY_BUCKETS: "256" }, { buckets: 256 }],
    [{ INVENTORY_HISTORY: "1" }, { changesKept: 1 }],
    [{ INVENTORY_HISTORY: "10000" }, { changesKept: 10_000 }],
    [{ OPERATION_RETENTION_HOURS: "8760" }, { operationRetentionMs: 8_760 * 3_600_000 }],
    [
      { DRAIN_WAIT_MS: "60000", DRAIN_DEADLINE_MS: "0" },
      { drainWaitMs: 60_000, drainMsMax: 0 },
    ],
  ];
  for (const [environment, expected] of ACCEPTED) {
    it(`accepts ${JSON.stringify(environment)}`, () => {
      assert.partialDeepStrictEqual(readConfig(environment), expected);
    });
  }

  const REFUSED: readonly [name: string, values: readonly string[], bound: RegExp][] = [
    ["PORT", ["-1", "65536", "80a", "8080.5", "0x50", " ", "1e3", "８０"], /whole number from 0 to 65535/],
    [
      "REDIS_URL",
      ["r:6379", "redis:6379", "http://r", "redis//r", " "],
      /begins with redis:\/\/ or rediss:\/\//,
    ],
    ["REDIS_PORT", ["0", "65536", "x"], /whole number from 1 to 65535/],
    ["REDIS_CLUSTER", ["a", "a:1,b", "redis://a:1", "a:1,,b:2"], /host:port/],
    ["KAFKA_BROKERS", ["broker", "a:1,b", "a:x", "a:1,,b:2", ","], /host:port/],
    ["TRUSTED_PROXIES", ["edge", "10.0.0.0/33", "10.0.0/8", "10.0.0.1,,10.0.0.2", "*"], /address,network/],
    ["LOG_LEVEL", ["loud", "INFO", "30"], /one of trace, debug, info, warn, error, fatal, silent/],
    ["LOG_FORMAT", ["xml"], /one of auto, json, pretty/],
    ["DEMO", ["yes", "ON", "2"], /on or off/],
    ["INVENTORY_HISTORY", ["0", "10001", "-1", "all"], /whole number from 1 to 10000/],
    ["DEMO_RESERVE", ["yes"], /on or off/],
    ["SHOP_NAME", ["x".repeat(61), "a\nb"], /1 to 60 characters/],
    ["INVENTORY_BUCKETS", ["0", "257", "-8"], /whole number from 1 to 256/],
    ["OPERATION_RETENTION_HOURS", ["23", "8761"], /whole number from 24 to 8760/],
    ["DRAIN_WAIT_MS", ["60001", "-1"], /whole number from 0 to 60000/],
    ["DRAIN_DEADLINE_MS", ["600001", "10s"], /whole number from 0 to 600000/],
  ];
  for (const [name, values, bound] of REFUSED) {
    for (const value of values) {
      it(`refuses ${name}=${JSON.stringify(value)}`, () => {
        const [fault = "", ...others] = faultsOf({ [name]: value });
        assert.ok(fault.startsWith(`${name} `), fault || "it was accepted");
        assert.match(fault, bound);
        if (name !== "REDIS_URL") {
          assert.ok(fault.includes(JSON.stringify(value)), `"${fault}" does not have the value`);
        }
        // A value may break two rules of its variable, but no other variable is reported.
        assert.ok(
          others.every((other) => other.startsWith(`${name} `)),
          others.join("\n"),
        );
      });
    }
  }

  it("refuses a Redis Cluster beside another address of Redis", () => {
    for (const [name, value] of [
      ["REDIS_URL", "redis://r"],
      ["REDIS_HOST", "r"],
      ["REDIS_SENTINELS", "a:26379"],
    ] as const) {
      assert.deepEqual(faultsOf({ REDIS_CLUSTER: "a:6379", [name]: value }), [
        `${name} and REDIS_CLUSTER are both set; the nodes of the Cluster name its primaries, so unset ${name}`,
      ]);
    }
  });

  it("refuses reservations of visitors with Redis, however it is configured, and without the demo", () => {
    for (const value of ["on", "true", "1"]) {
      for (const other of [
        { REDIS_URL: "redis://r" },
        { REDIS_HOST: "r" },
        { REDIS_SENTINELS: "a:26379,b:26379" },
        { REDIS_CLUSTER: "a:6379,b:6379" },
        { REDIS_URL: "redis://r", DEMO: "on" },
      ]) {
        assert.deepEqual(faultsOf({ DEMO_RESERVE: value, ...other }), [
          `DEMO_RESERVE is "${value}"; it lets every visitor reserve and buy, so it needs the embedded store, and Redis is configured`,
        ]);
      }
      assert.deepEqual(faultsOf({ DEMO_RESERVE: value, DEMO: "off" }), [
        `DEMO_RESERVE is "${value}"; it lets every visitor reserve and buy, so it needs DEMO, which is off`,
      ]);
    }
  });

  describe("authentication", () => {
    const entry = `orders:orders:${"a".repeat(64)}`;

    it("may be absent on a loopback address, and elsewhere only with AUTH=off", () => {
      for (const HOST of ["127.0.0.1", "127.8.9.1", "localhost", "::1"]) {
        assert.equal(readConfig({ HOST }).access, undefined);
      }
      for (const HOST of ["0.0.0.0", "::", "10.0.0.7", "shop.example", "127.0.0.1.example", "127.999.1.1"]) {
        assert.match(faultsOf({ HOST }).join(), /clients on other machines could change stock/);
        assert.equal(readConfig({ HOST, AUTH: "off" }).access, undefined);
        assert.equal(readConfig({ HOST, AUTH_TOKENS: entry }).access?.tokens.length, 1);
      }
    });

    it("reads tokens separated by commas or line ends", () => {
      const AUTH_TOKENS = `# Orders\n${entry},\n  warehouse:supply:${"B".repeat(64)}\n`;
      assert.deepEqual(readConfig({ AUTH_TOKENS }).access?.tokens, [
        { name: "orders", role: "orders", sha256: Buffer.alloc(32, 0xaa) },
        { name: "warehouse", role: "supply", sha256: Buffer.alloc(32, 0xbb) },
      ]);
    });

    it("rejects incomplete and contradictory settings", () => {
      const MISTAKES: readonly [environment: NodeJS.ProcessEnv, fault: RegExp][] = [
        [{ AUTH_TOKENS: " , " }, /AUTH_TOKENS has no entries/],
        [{ AUTH_TOKENS: "orders" }, /entry 1 must be name:role:sha256/],
        [{ AUTH_TOKENS: `${entry},orders:admin:${"a".repeat(64)}` }, /entry 2 .*orders, supply, ops/],
        [{ AUTH_TOKENS: `orders:orders:${"a".repeat(63)}` }, /64 hex digits/],
        [{ AUTH_TOKENS: `${entry}:x` }, /entry 1/],
        [{ AUTH_TOKENS: `${entry},ops:ops:${"A".repeat(64)}` }, /orders and ops have the same token/],
        [
          { AUTH_TOKENS_FILE: "/nowhere/tokens" },
          /AUTH_TOKENS_FILE is "\/nowhere\/tokens"; it cannot be read/,
        ],
        [{ AUTH: "on" }, /AUTH is "on"; it needs one of/],
        [{ AUTH: "off", AUTH_TOKENS: entry }, /AUTH is "off"; but .* is set/],
        [{ AUTH_JWKS: "https://i.example/jwks" }, /must be set together/],
        [{ AUTH_JWT_ISSUER: "https://i.example" }, /must be set together/],
        [
          { AUTH_JWKS: "/nowhere/jwks", AUTH_JWT_ISSUER: "i", AUTH_JWT_AUDIENCE: "a" },
          /AUTH_JWKS is "\/nowhere\/jwks"; it cannot be read/,
        ],
        [
          { AUTH_JWKS: "https://me:my-secret@i.example", AUTH_JWT_ISSUER: "i", AUTH_JWT_AUDIENCE: "a" },
          /^AUTH_JWKS contains a user name or a password; credentials are not supported$/,
        ],
        [{ TLS_CLIENT_CA: "ca.pem" }, /TLS_CLIENT_CA is set; it needs TLS_CERT/],
        [{ TLS_CLIENT_ROLES: "orders:orders" }, /TLS_CLIENT_CA and TLS_CLIENT_ROLES must be set together/],
        [{ TLS_CLIENT_CA: "ca.pem", TLS_CLIENT_ROLES: "# nobody yet" }, /TLS_CLIENT_ROLES has no entries/],
        [{ TLS_CLIENT_CA: "ca.pem", TLS_CLIENT_ROLES: "orders" }, /TLS_CLIENT_ROLES has "orders"/],
      ];
      for (const [environment, fault] of MISTAKES) {
        assert.match(faultsOf(environment).join("\n"), fault, JSON.stringify(environment));
      }
    });

    it("is reported without quoting what may be a token", () => {
      assert.doesNotMatch(faultsOf({ AUTH_TOKENS: "my-secret-token" }).join(), /my-secret/);
    });
  });

  it("reports all faults at once, and no secret", () => {
    const faults = faultsOf({
      HOST: "0.0.0.0",
      PORT: "x",
      REDIS_URL: "redid://user:secret@r",
      REDIS_PASSWORD: "secret",
      LOG_LEVEL: "x",
      AUTH: "x",
      TLS_KEY: "/nowhere/key.pem",
    });
    assert.deepEqual(faults.map((fault) => fault.split(" ")[0]).toSorted(), [
      "AUTH",
      "HOST",
      "LOG_LEVEL",
      "PORT",
      "REDIS_URL",
      "TLS_CERT",
      "TLS_KEY",
    ]);
    assert.doesNotMatch(faults.join(), /secret/);
    assert.equal(faultsOf({ PORT: "x", AUTH: "x", AUTH_TOKENS: "x", AUTH_JWKS: "x" }).length, 4);
  });

  describe("with TLS", () => {
    let dir: string;
    let file: string;
    before(async () => {
      dir = await mkdtemp(join(tmpdir(), "inventory-config-"));
      file = join(dir, "cert.pem");
      await writeFile(file, "a certificate");
    });
    after(() => rm(dir, { recursive: true, force: true }));

    it("needs both files, and that they can be read", () => {
      assert.match(faultsOf({ TLS_CERT: file }).join("\n"), /^TLS_KEY is not set; .*both/m);
      assert.match(faultsOf({ TLS_KEY: file }).join("\n"), /^TLS_CERT is not set; .*both/m);
      const missing = faultsOf({ TLS_CERT: join(dir, "none.pem"), TLS_KEY: dir }).join("\n");
      assert.match(missing, /^TLS_CERT is ".*none\.pem"; .*ENOENT/m);
      assert.match(missing, /^TLS_KEY is ".*"; .*EISDIR/m);
    });
  });
});
