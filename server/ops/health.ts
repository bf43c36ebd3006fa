import { EventEmitter } from "node:events";
import type { BuildInfo } from "./build-info.ts";

/** Why the server should get no traffic. Empty if it is ready. */
export type UnreadyReasons = readonly string[];

/** The body of `/readyz`: besides readiness, which parts are degraded while the server is ready, and their figures. */
export interface HealthReport {
  readonly ready: boolean;
  readonly reasons: UnreadyReasons;
  readonly version?: string;
  readonly commit?: string;
  /** Degraded parts, one sentence each. Absent if the server has no such parts. */
  readonly degraded?: readonly string[];
  /** Figures by part, such as lag. Absent if the server has no such parts. */
  readonly details?: Readonly<Record<string, unknown>>;
}

/** A part that may be degraded while the server is ready. It never makes the server unready. */
export interface HealthPart {
  readonly name: string;
  degraded(): readonly string[];
  details(): unknown;
}

/** Interval between checks, which bounds the age of `current`. */
const CHECK_INTERVAL_MS = 1_000;

/**
 * Whether this server should get traffic, and if not, why. `/readyz` and grpc.health.v1 both use it.
 * Each check returns a reason, or `undefined` if it passes.
 */
export class Health {
  readonly #checks: (() => Promise<string | undefined>)[] = [];
  readonly #parts: HealthPart[] = [];
  readonly #changes = new EventEmitter<{ change: [UnreadyReasons] }>();
  readonly #timer: NodeJS.Timeout;
  #draining = false;
  /** The number of check runs started, and the newest run that has finished. */
  #started = 0;
  #finished = 0;
  #last: UnreadyReasons = ["The server is starting"];

  readonly #build: BuildInfo | undefined;

  /** The build is part of the report. */
  constructor(build?: BuildInfo) {
    this.#build = build;
    this.#changes.setMaxListeners(0);
    this.#timer = setInterval(() => void this.check(), CHECK_INTERVAL_MS);
    this.#timer.unref();
  }

  addCheck(check: () => Promise<string | undefined>): void {
    this.#checks.push(check);
  }

  addPart(part: HealthPart): void {
    this.#parts.push(part);
  }

  /** Runs every check and collects the state of every part. */
  async report(): Promise<HealthReport> {
    const reasons = await this.check();
    const verdict = { ready: reasons.length === 0, reasons, ...this.#build };
    if (this.#parts.length === 0) {
      return verdict;
    }
    return {
      ...verdict,
      degraded: this.#parts.flatMap((part) => part.degraded()),
      details: Object.fromEntries(this.#parts.map((part) => [part.name, part.details()])),
    };
  }

  /** Runs every check now. */
  async check(): Promise<UnreadyReasons> {
    this.#started += 1;
    const run = this.#started;
    const results = await Promise.all(this.#checks.map((check) => check()));
    // An unresponsive store delays a run. If a later run has finished by then, this result is outdated.
    if (run < this.#finished) return this.#last;
    this.#finished = run;
    const reasons = results.filter((reason) => reason !== undefined);
    return this.#update(this.#draining ? ["The server is shutting down", ...reasons] : reasons);
  }

  /** The latest result, at most about a second old. */
  get current(): UnreadyReasons {
    return this.#last;
  }

  get isDraining(): boolean {
    return this.#draining;
  }

  /** Makes the server unready from now on, whatever the result of the checks. */
  startDraining(): void {
    this.#draining = true;
    this.#update(["The server is shutting down"]);
  }

  /** Calls the listener when the server becomes ready or unready. Returns a function that unsubscribes. */
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
