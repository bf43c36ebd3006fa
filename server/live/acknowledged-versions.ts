/** A version that this server has acknowledged, and the time of the acknowledgement, ms. */
interface Acknowledged {
  readonly version: number;
  readonly atMs: number;
}

/** Waits for the versions that were outstanding when it was created. */
interface Waiter {
  readonly versions: readonly (readonly [productId: string, acknowledged: Acknowledged])[];
  /** The first of them that is still outstanding. */
  next: number;
  readonly createdAtMs: number;
  readonly promise: Promise<void>;
  readonly resolve: () => void;
}

/**
 * The versions that this server has acknowledged and that the change stream has not delivered yet. A read that must
 * not be older than an acknowledged change either avoids their products or waits for them.
 */
export class AcknowledgedVersions {
  /** By product ID, oldest acknowledgement first. */
  readonly #outstanding = new Map<string, Acknowledged>();
  readonly #waiters = new Set<Waiter>();
  /** The waiter for all versions, shared by the calls between two acknowledgements. */
  #waiterForAll: Waiter | undefined;
  readonly #versionOf: (productId: string) => number;
  readonly #now: () => number;

  /** `versionOf`: the delivered version of a product, 0 if there is none. `now` is monotonic, in milliseconds. */
  constructor(versionOf: (productId: string) => number, now: () => number) {
    this.#versionOf = versionOf;
    this.#now = now;
  }

  add(productId: string, version: number): void {
    if (version > Math.max(this.#versionOf(productId), this.#outstanding.get(productId)?.version ?? 0)) {
      this.#outstanding.delete(productId);
      this.#outstanding.set(productId, { version, atMs: this.#now() });
      this.#waiterForAll = undefined;
    }
  }

  /** Whether a version of the product is outstanding. */
  has(productId: string): boolean {
    return this.#outstanding.size > 0 && this.#outstanding.has(productId);
  }

  /**
   * Resolves when the versions that are outstanding now, of these products or of all, were delivered or dropped.
   * `undefined` if there are none.
   */
  delivered(productIds: Iterable<string> | undefined): Promise<void> | undefined {
    if (this.#outstanding.size === 0) {
      return undefined;
    }
    if (productIds === undefined) {
      this.#waiterForAll ??= this.#createWaiter([...this.#outstanding]);
      return this.#waiterForAll.promise;
    }
    const asked = new Set(productIds);
    const versions = [...this.#outstanding].filter(([productId]) => asked.has(productId));
    return versions.length === 0 ? undefined : this.#createWaiter(versions).promise;
  }

  /** The stream has delivered a version of a product. */
  onDelivered(productId: string, version: number): void {
    if (this.#outstanding.size === 0) {
      // Usual. A look-up would hash the ID.
      return;
    }
    const acknowledged = this.#outstanding.get(productId);
    if (acknowledged !== undefined && version >= acknowledged.version) {
      this.#outstanding.delete(productId);
    }
  }

  /** Resolves the waiters whose versions were all delivered. Called after each batch of deliveries. */
  resolveWaiters(): void {
    for (const waiter of this.#waiters) {
      const { versions } = waiter;
      for (; waiter.next < versions.length; waiter.next += 1) {
        const [productId, { version }] = versions[waiter.next] as (typeof versions)[number];
        if (this.#versionOf(productId) < version) {
          break;
        }
      }
      if (waiter.next === versions.length) {
        this.#resolve(waiter);
      }
    }
  }

  /** Drops what was acknowledged before a time at which the stream is known to have delivered everything. */
  dropUntil(timeMs: number): void {
    for (const [productId, { atMs }] of this.#outstanding) {
      if (atMs > timeMs) {
        break;
      }
      this.#outstanding.delete(productId);
    }
    for (const waiter of this.#waiters) {
      if (waiter.createdAtMs <= timeMs) {
        this.#resolve(waiter);
      }
    }
  }

  /** Drops all versions: they were lost with the data. */
  clear(): void {
    this.#outstanding.clear();
    this.resolveAll();
  }

  /** Ends all waits, delivered or not. */
  resolveAll(): void {
    for (const waiter of this.#waiters) {
      this.#resolve(waiter);
    }
  }

  #createWaiter(versions: Waiter["versions"]): Waiter {
    const waiter = { versions, next: 0, createdAtMs: this.#now(), ...Promise.withResolvers<void>() };
    this.#waiters.add(waiter);
    return waiter;
  }

  #resolve(waiter: Waiter): void {
    this.#waiters.delete(waiter);
    if (waiter === this.#waiterForAll) {
      this.#waiterForAll = undefined;
    }
    waiter.resolve();
  }
}
