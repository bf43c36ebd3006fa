/** Stops one part of the server. */
export type Release = () => Promise<unknown> | unknown;

/**
 * The stack of parts to stop, the last started first. Each start pushes its release right away. `run`
 * runs every release, even if one fails, and then reports all failures.
 */
export class Releases {
  readonly #stack: { readonly name: string; readonly release: Release }[] = [];

  push(name: string, release: Release): void {
    this.#stack.push({ name, release });
  }

  /** Runs every release once. Throws an `AggregateError` that names the parts that could not be stopped. */
  async run(): Promise<void> {
    const failures: Error[] = [];
    for (let top = this.#stack.pop(); top !== undefined; top = this.#stack.pop()) {
      try {
        await top.release();
      } catch (cause) {
        failures.push(new Error(`Could not stop ${top.name}`, { cause }));
      }
    }
    if (failures.length > 0) {
      throw new AggregateError(failures, failures.map((failure) => failure.message).join("; "));
    }
  }
}
