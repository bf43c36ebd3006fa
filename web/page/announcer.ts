/** Minimum time between two announcements. */
const INTERVAL_MS = 5_000;
/** Maximum number of texts in one announcement; the rest is summarised as a number. */
const NAMED_MAX = 3;

/** Announces changes to screen readers through a polite live region, at most once in five seconds. */
export class Announcer {
  readonly #region: HTMLElement;
  readonly #pending = new Map<string, string>();
  #nextMs = 0;
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(region: HTMLElement) {
    this.#region = region;
  }

  /** Queues an announcement. It replaces a queued one about the same subject. */
  announce(subject: string, text: string): void {
    this.#pending.set(subject, text);
    this.#timer ??= setTimeout(() => this.#flush(), Math.max(0, this.#nextMs - Date.now()));
  }

  #flush(): void {
    this.#timer = undefined;
    this.#nextMs = Date.now() + INTERVAL_MS;
    const texts = [...this.#pending.values()];
    const rest = texts.length - NAMED_MAX;
    const announced = rest > 1 ? [...texts.slice(0, NAMED_MAX), `And ${rest} more products changed`] : texts;
    this.#region.textContent = `${announced.join(". ")}.`;
    this.#pending.clear();
  }
}
