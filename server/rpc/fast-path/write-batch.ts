/** Writes of a batch. It bounds the delay of the first one to the time of 31 further calls, less than a millisecond. */
const BATCH_MAX = 32;

interface Write {
  /** Must not throw. */
  flush(): void;
}

/**
 * Defers writes to sockets to the end of the event loop turn, as Redis does with its replies and Node with the frames of
 * HTTP/2. Responses that are written one call apart cost more CPU time: presumably each wakes the client's core, which
 * was idle again.
 */
export class WriteBatch {
  #writes: Write[] = [];
  #isScheduled = false;

  add(write: Write): void {
    this.#writes.push(write);
    if (this.#writes.length >= BATCH_MAX) {
      this.#flush();
    } else if (!this.#isScheduled) {
      this.#isScheduled = true;
      setImmediate(this.#onTurnEnd);
    }
  }

  readonly #onTurnEnd = (): void => {
    this.#isScheduled = false;
    this.#flush();
  };

  #flush(): void {
    const writes = this.#writes;
    this.#writes = [];
    for (const write of writes) write.flush();
  }
}
