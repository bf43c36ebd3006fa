import { EventEmitter } from "node:events";

/** Why the service should get no traffic: an empty list means that it should. */
export type UnreadyReasons = readonly string[];

/** What a person or a probe is told: also what is impaired while the server serves on, and figures behind it. */
export interface HealthReport {
  readonly ready: boolean;
  readonly reasons: UnreadyReasons;
  /** What does not work although traffic is served, a sentence each. Absent where the server has no such parts. */
  readonly degraded?: readonly string[];
  /** Figures by part, such as lag. Absent likewise. */
  readonly details?: Readonly<Record<string, unknown>>;
}

/** A part that may be impaired while the server still serves: it never makes the server unready. */
export interface HealthPart {
  readonly name: string;
  degraded(): readonly string[];
  details(): unknown;
}

/** How old the answer of `current` may be. */
const REFRESH_INTERVAL_MS = 1_000;

/**
 * Whether this server should get traffic, and if not, why. `/readyz` and grpc.health.v1 both answer
 * from here. Each check returns a reason or `undefined`.
 */
export class Health {
  readonly #checks: (() => Promise<string | undefined>)[] = [];
  readonly #parts: HealthPart[] = [];
  readonly #changes = new EventEmitter<{ change: [UnreadyReasons] }>();
  readonly #timer: NodeJS.Timeout;
  #draining = false;
  /** How many looks have begun, and which was the last to begin of those that have ended. */
  #asked = 0;
  #answered = 0;
  #last: UnreadyReasons = ["The server is starting"];

  constructor() {
    this.#changes.setMaxListeners(0);
    this.#timer = setInterval(() => void this.check(), REFRESH_INTERVAL_MS);
    this.#timer.unref();
  }

  addCheck(check: () => Promise<string | undefined>): void {
    this.#checks.push(check);
  }

  addPart(part: HealthPart): void {
    this.#parts.push(part);
  }

  /** Asks every check and every part now. */
  async report(): Promise<HealthReport> {
    const reasons = await this.check();
    const verdict = { ready: reasons.length === 0, reasons };
    if (this.#parts.length === 0) {
      return verdict;
    }
    return {
      ...verdict,
      degraded: this.#parts.flatMap((part) => part.degraded()),
      details: Object.fromEntries(this.#parts.map((part) => [part.name, part.details()])),
    };
  }

  /** Asks every check now. */
  async check(): Promise<UnreadyReasons> {
    this.#asked += 1;
    const turn = this.#asked;
    const answers = await Promise.all(this.#checks.map((check) => check()));
    // A store that does not answer holds a look up; one that began later has told more by then.
    if (turn < this.#answered) return this.#last;
    this.#answered = turn;
    const reasons = answers.filter((reason) => reason !== undefined);
    return this.#update(this.#draining ? ["The server is shutting down", ...reasons] : reasons);
  }

  /** The newest answer, at most about a second old. */
  get current(): UnreadyReasons {
    return this.#last;
  }

  /** From now on the server is unready, whatever the checks say. */
  startDraining(): void {
    this.#draining = true;
    this.#update(["The server is shutting down"]);
  }

  /** Calls back when the server becomes ready or unready. Returns what unsubscribes. */
  onChange(listener: (reasons: UnreadyReasons) => void): () => void {
    this.#changes.on("change", listener);
    return () => this.#changes.off("change", listener);
  }

  close(): void {
    clearInterval(this.#timer);
  }

  #update(reasons: UnreadyReasons): UnreadyReasons {
    const changed = (this.#last.length === 0) !== (reasons.length === 0);
    this.#last = reasons;
    if (changed) {
      this.#changes.emit("change", reasons);
    }
    return reasons;
  }
}
