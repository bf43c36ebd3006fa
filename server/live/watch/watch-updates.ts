import type { Watch, WatchSink } from "./watch.ts";
import type { WatchUpdate } from "./watch-message.ts";

/** The messages of a watch as an async iterable, until the watch is closed or has sent its last message. */
export async function* updatesOf(watch: Watch): AsyncGenerator<WatchUpdate> {
  const sink = new PullSink(watch);
  watch.start(sink);
  try {
    for (;;) {
      const update = await sink.next();
      if (update === undefined) {
        return;
      }
      yield update;
    }
  } finally {
    watch.close();
  }
}

/** Is ready for one message per call of `next`. */
class PullSink implements WatchSink {
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

  write(update: WatchUpdate): void {
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
