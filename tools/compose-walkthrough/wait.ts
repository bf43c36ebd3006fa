import { setTimeout as sleep } from "node:timers/promises";

const INTERVAL_MS = 200;

/** Repeats `probe` until it resolves with a truthy value. Rejects with its last result or error after `timeoutMs`. */
export async function eventually<T>(
  probe: () => Promise<T>,
  what: string,
  timeoutMs: number,
): Promise<Exclude<T, false | undefined | "">> {
  const deadline = performance.now() + timeoutMs;
  let last: unknown;
  while (performance.now() < deadline) {
    try {
      last = await probe();
      if (last !== false && last !== undefined && last !== "") {
        return last as Exclude<T, false | undefined | "">;
      }
    } catch (error) {
      last = error;
    }
    await sleep(INTERVAL_MS);
  }
  throw new Error(`Not within ${timeoutMs / 1_000} s: ${what} (${String(last)})`);
}
