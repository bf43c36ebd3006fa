/** The time of the oldest unacknowledged message of each partition. */
export class Oldest {
  readonly #times = new Map<string, number>();

  /** A message of this time, ms since 1970, is being processed. */
  started(topic: string, partition: number, timestampMs: number): void {
    this.#times.set(keyOf(topic, partition), timestampMs);
  }

  /** The partition's messages are acknowledged. */
  done(topic: string, partition: number): void {
    this.#times.delete(keyOf(topic, partition));
  }

  /** Removes all partitions except these. */
  keep(assignment: Readonly<Record<string, readonly number[]>>): void {
    const kept = new Set(
      Object.entries(assignment).flatMap(([topic, partitions]) =>
        partitions.map((each) => keyOf(topic, each)),
      ),
    );
    for (const key of this.#times.keys()) {
      if (!kept.has(key)) {
        this.#times.delete(key);
      }
    }
  }

  /** Age of the oldest message, in ms; 0 if there is none. */
  ageMs(nowMs: number): number {
    return this.#times.size === 0 ? 0 : Math.max(0, nowMs - Math.min(...this.#times.values()));
  }
}

function keyOf(topic: string, partition: number): string {
  return `${partition} ${topic}`;
}
