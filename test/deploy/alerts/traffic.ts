import assert from "node:assert/strict";
import { setTimeout as wait } from "node:timers/promises";
import { until } from "../../support/until.ts";

const SETTLE_MS_MAX = 60_000;
const PAUSE_MS = 50;

/** Calls a method by Connect JSON. Returns the HTTP status. */
export async function post(baseUrl: string, path: string, body: object): Promise<number> {
  const response = await fetch(`${baseUrl}/inventory.v1.${path}`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
  });
  await response.arrayBuffer();
  return response.status;
}

/** Repeats a call until it succeeds. */
export async function untilDone(action: () => Promise<number>): Promise<void> {
  await until(
    async () => {
      assert.equal(await action(), 200);
      return true;
    },
    "the call succeeds",
    SETTLE_MS_MAX,
  );
}

/** Repeats calls until the wait ends, `parallel` at a time. */
export async function during(
  waiting: Promise<unknown>,
  traffic: () => Promise<unknown>,
  { parallel = 1, pauseMs = PAUSE_MS } = {},
): Promise<void> {
  let isOver = false;
  const repeat = async (): Promise<void> => {
    while (!isOver) {
      await Promise.all([traffic(), wait(pauseMs)]);
    }
  };
  const repeated = Promise.all(Array.from({ length: parallel }, repeat));
  try {
    await waiting;
  } finally {
    isOver = true;
    await repeated;
  }
}
