import { spawn } from "node:child_process";
import { once } from "node:events";
import { need, REDIS_SERVERS } from "../test/support/programs.ts";

// npm run test:redis: everything that needs Redis, on each server that the documentation calls tested.

const FILES = [
  "test/redis/*.test.ts",
  "test/model/*.test.ts",
  "test/failover/*.test.ts",
  "test/edge/outage.slow.test.ts",
  "test/e2e/chaos.test.ts",
  "test/web/stale.test.ts",
];

for (const server of ["system", ...REDIS_SERVERS] as const) {
  const { missing } = need(server === "system" ? "redis-server" : server);
  if (missing) {
    process.stdout.write(`${server}: left out, ${missing}\n`);
    continue;
  }
  process.stdout.write(`${server}:\n`);
  const args = ["--test", "--test-concurrency=2", "--test-timeout=300000", ...FILES];
  const run = spawn(process.execPath, args, {
    stdio: "inherit",
    env: { ...process.env, REDIS_SERVER: server },
  });
  const [code] = await once(run, "exit");
  if (code !== 0) process.exitCode = 1;
}
