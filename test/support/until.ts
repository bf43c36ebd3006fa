import { setTimeout as pause } from "node:timers/promises";

/** Thrown by a condition that can no longer become true: `until` then fails at once instead of at its deadline. */
export class Hopeless extends Error {
  override readonly name = "Hopeless";
}

const pollFirstMs = 2;
const pollMostMs = 50;

/**
 * Evaluates a condition repeatedly until it returns something other than false, null or undefined, and returns that. An error
 * of the condition means "not yet", and is part of the message at the timeout; a `Hopeless` ends the wait at once. Rejects
 * after `timeoutMs` (10 seconds unless given), also if the condition itself never settles.
 */
export async function until<T>(
  condition: () => T | Promise<T>,
  what: string,
  timeoutMs = 10_000,
): Promise<Exclude<T, false | null | undefined>> {
  const deadline = performance.now() + timeoutMs;
  let lastError: unknown;
  let pollMs = pollFirstMs;
  for (;;) {
    try {
      const answer = await inTime(condition(), deadline);
      if (answer !== false && answer !== null && answer !== undefined) {
        return answer as Exclude<T, false | null | undefined>;
      }
      lastError = undefined;
    } catch (error) {
      if (error instanceof Hopeless) throw error;
      lastError = error;
    }
    if (performance.now() + pollMs >= deadline) {
      const reason = lastError instanceof Error ? `: ${lastError.message}` : "";
      throw new Error(`Timed out after ${timeoutMs} ms waiting until ${what}${reason}`, { cause: lastError });
    }
    await pause(pollMs);
    pollMs = Math.min(pollMs * 2, pollMostMs);
  }
}

async function inTime<T>(answer: T | Promise<T>, deadline: number): Promise<T> {
  if (!(answer instanceof Promise)) return answer;
  const over = new AbortController();
  const remainingMs = Math.max(0, deadline - performance.now());
  const tooLate = pause(remainingMs, undefined, { signal: over.signal }).then(() => {
    throw new Error("the condition has not answered");
  });
  try {
    return await Promise.race([answer, tooLate]);
  } finally {
    over.abort();
    tooLate.catch(() => undefined);
  }
}
