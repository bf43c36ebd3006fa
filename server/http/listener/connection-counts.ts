/** Counts open connections by client, however the listener groups addresses into clients. */
export class ConnectionCounts {
  readonly #counts = new Map<string, number>();

  /** Returns how many are open with this one. */
  add(client: string): number {
    const count = 1 + (this.#counts.get(client) ?? 0);
    this.#counts.set(client, count);
    return count;
  }

  remove(client: string): void {
    const count = (this.#counts.get(client) ?? 0) - 1;
    if (count > 0) this.#counts.set(client, count);
    else this.#counts.delete(client);
  }
}
