import type { Watch, WatchReader } from "./watch.ts";
import type { WatchUpdate } from "./watch-message.ts";

/** The messages of a watch for a reader that pulls them, until the watch is closed or has said goodbye. */
export async function* updatesOf(watch: Watch): AsyncGenerator<WatchUpdate> {
  const reader = new PullingReader(watch);
  watch.start(reader);
  try {
    for (;;) {
      const update = await reader.next();
      if (update === undefined) {
        return;
      }
      yield update;
    }
  } finally {
    watch.close();
  }
}

/** It takes one message for each pull. */
class PullingReader implements WatchReader {
  readonly #watch: Watch;
  #resolve: ((update: WatchUpdate | undefined) => void) | undefined;
  #hasEnded = false;

  constructor(watch: Watch) {
    this.#watch = watch;
  }

  get isReady(): boolean {
    return this.#resolve !== undefined;
  }

  /** The next message, `undefined` after the last. */
  next(): Promise<WatchUpdate | undefined> {
    return new Promise((resolve) => {
      if (this.#hasEnded) {
        resolve(undefined);
        return;
      }
      this.#resolve = resolve;
      this.#watch.resume();
    });
  }

  take(update: WatchUpdate): void {
    this.#settle(update);
  }

  end(): void {
    this.#hasEnded = true;
    this.#settle(undefined);
  }

  #settle(update: WatchUpdate | undefined): void {
    const resolve = this.#resolve;
    this.#resolve = undefined;
    resolve?.(update);
  }
}
