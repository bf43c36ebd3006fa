/** Ends one thing that was started. */
export type Release = () => Promise<unknown> | unknown;

/**
 * What was started and must be ended, last started first. Whoever starts a thing pushes its
 * release next; stopping runs all of them, also where one fails, and then reports every failure.
 */
export class Releases {
  readonly #stack: { readonly name: string; readonly release: Release }[] = [];

  push(name: string, release: Release): void {
    this.#stack.push({ name, release });
  }

  /** Runs every release once. Throws an `AggregateError` that names what could not be ended. */
  async run(): Promise<void> {
    const failures: Error[] = [];
    for (let top = this.#stack.pop(); top !== undefined; top = this.#stack.pop()) {
      try {
        await top.release();
      } catch (cause) {
        failures.push(new Error(`Could not end ${top.name}`, { cause }));
      }
    }
    if (failures.length > 0) {
      throw new AggregateError(failures, failures.map((failure) => failure.message).join("; "));
    }
  }
}
