/** Least time between two messages to a screen reader. */
const INTERVAL_MS = 5_000;
/** More news than this at once are told as a number. */
const NAMED_MAX = 3;

/** The page's one polite live region: at most one message in five seconds, and of what came meanwhile the newest. */
export class Announcer {
  readonly #region: HTMLElement;
  readonly #pending = new Map<string, string>();
  #nextMs = 0;
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(region: HTMLElement) {
    this.#region = region;
  }

  /** Tells of a subject; what was not yet told of the same one is replaced. */
  say(subject: string, text: string): void {
    this.#pending.set(subject, text);
    this.#timer ??= setTimeout(() => this.#speak(), Math.max(0, this.#nextMs - Date.now()));
  }

  #speak(): void {
    this.#timer = undefined;
    this.#nextMs = Date.now() + INTERVAL_MS;
    const texts = [...this.#pending.values()];
    const rest = texts.length - NAMED_MAX;
    const told = rest > 1 ? [...texts.slice(0, NAMED_MAX), `And ${rest} more products changed`] : texts;
    this.#region.textContent = `${told.join(". ")}.`;
    this.#pending.clear();
  }
}
