import { Redis } from "ioredis";

/** Counts the script calls of clients, by Redis's own statistics. */
export class ScriptCalls implements Disposable {
  readonly #clients: readonly Redis[];

  /** Of all servers together. */
  constructor(redisUrls: readonly string[]) {
    this.#clients = redisUrls.map((url) => new Redis(url));
  }

  async count(): Promise<number> {
    const infos = await Promise.all(this.#clients.map((client) => client.info("commandstats")));
    const calls = infos.flatMap((info) => [
      ...info.matchAll(/^cmdstat_(?:eval|evalsha|fcall):calls=(\d+)/gm),
    ]);
    return calls.reduce((sum, [, count]) => sum + Number(count), 0);
  }

  /** Calls per second while an action runs. */
  async perSecond(action: () => Promise<unknown>): Promise<number> {
    const [before, startedAt] = [await this.count(), performance.now()];
    await action();
    return ((await this.count()) - before) / ((performance.now() - startedAt) / 1_000);
  }

  [Symbol.dispose](): void {
    for (const client of this.#clients) {
      client.disconnect();
    }
  }
}
