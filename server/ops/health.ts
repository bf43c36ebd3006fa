import { EventEmitter } from "node:events";
import type { BuildInfo } from "./build-info.ts";

/** Why the server should get no traffic. Empty if it is ready. */
export type UnreadyReasons = readonly string[];

/**
 * What a server may be ready for. Reads are served from memory, so they stay ready while the store is unavailable; writes
 * need the store.
 */
export const PURPOSES = ["reads", "writes"] as const;
export type Purpose = (typeof PURPOSES)[number];

/** The paths of readiness, with the purpose that each is about. `/readyz` is about all of them. */
export const READINESS_PATHS: ReadonlyMap<string, Purpose | undefined> = new Map([
  ["/readyz", undefined],
  ...PURPOSES.map((purpose) => [`/readyz/${purpose}`, purpose] as const),
]);

interface Readiness {
  readonly ready: boolean;
  readonly reasons: UnreadyReasons;
}

/** The body of `/readyz`: besides readiness, which parts are degraded while the server is ready, and their figures. */
export interface HealthReport extends Readiness {
  readonly version?: string;
  readonly commit?: string;
  /** Readiness by purpose. Absent in the report of one purpose. */
  readonly reads?: Readiness;
  readonly writes?: Readiness;
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

/** Interval between checks. */
const CHECK_INTERVAL_MS = 1_000;
const STARTING = "The server is starting";
const DRAINING = "The server is shutting down";

type Check = () => Promise<string | undefined>;

/**
 * Whether this server should get traffic, and if not, why. `/readyz` and grpc.health.v1 both use it. Each check returns a
 * reason, or `undefined` if it passes. The checks of a purpose do not wait for those of the other one.
 */
export class Health {
  readonly #checks = { reads: new PurposeChecks(), writes: new PurposeChecks() };
  readonly #parts: HealthPart[] = [];
  readonly #changes = new EventEmitter<{ change: [] }>();
  readonly #timer: NodeJS.Timeout;
  readonly #build: BuildInfo | undefined;
  #draining = false;

  /** The build is part of the report. */
  constructor(build?: BuildInfo) {
    this.#build = build;
    this.#changes.setMaxListeners(0);
    this.#timer = setInterval(() => void this.check(), CHECK_INTERVAL_MS);
    this.#timer.unref();
  }

  addCheck(purpose: Purpose, check: Check): void {
    this.#checks[purpose].checks.push(check);
  }

  addPart(part: HealthPart): void {
    this.#parts.push(part);
  }

  /** Runs the checks of one purpose, or of all, and collects the state of every part. */
  async report(purpose?: Purpose): Promise<HealthReport> {
    await this.check(purpose);
    const report = { ...this.#readiness(purpose), ...this.#build };
    const byPurpose = purpose === undefined && {
      reads: this.#readiness("reads"),
      writes: this.#readiness("writes"),
    };
    const parts = this.#parts.length > 0 && {
      degraded: this.#parts.flatMap((part) => part.degraded()),
      details: Object.fromEntries(this.#parts.map((part) => [part.name, part.details()])),
    };
    return { ...report, ...byPurpose, ...parts };
  }

  /** Runs the checks of one purpose, or of all. */
  async check(purpose?: Purpose): Promise<UnreadyReasons> {
    const purposes = purpose === undefined ? PURPOSES : [purpose];
    await Promise.all(
      purposes.map(async (each) => {
        const reasons = await this.#checks[each].run();
        if (reasons !== undefined) {
          this.#update(each, this.#draining ? [DRAINING, ...reasons] : reasons);
        }
      }),
    );
    return this.current(purpose);
  }

  /** The latest result for one purpose, or for all, at most about a second old. */
  current(purpose?: Purpose): UnreadyReasons {
    const { reads, writes } = this.#checks;
    return purpose === undefined
      ? [...new Set([...writes.reasons, ...reads.reasons])]
      : this.#checks[purpose].reasons;
  }

  get isDraining(): boolean {
    return this.#draining;
  }

  /** Makes the server unready from now on, whatever the result of the checks. */
  startDraining(): void {
    this.#draining = true;
    for (const purpose of PURPOSES) {
      this.#update(purpose, [DRAINING]);
    }
  }

  /** Calls the listener when the server becomes ready or unready for a purpose. Returns a function that unsubscribes. */
  onChange(listener: () => void): () => void {
    this.#changes.on("change", listener);
    return () => this.#changes.off("change", listener);
  }

  close(): void {
    clearInterval(this.#timer);
  }

  #readiness(purpose?: Purpose): Readiness {
    const reasons = this.current(purpose);
    return { ready: reasons.length === 0, reasons };
  }

  #update(purpose: Purpose, reasons: UnreadyReasons): void {
    const checks = this.#checks[purpose];
    const changed = (checks.reasons.length === 0) !== (reasons.length === 0);
    checks.reasons = reasons;
    if (changed) {
      this.#changes.emit("change");
    }
  }
}

/** The checks of one purpose, and their latest result. */
class PurposeChecks {
  readonly checks: Check[] = [];
  reasons: UnreadyReasons = [STARTING];
  /** The number of check runs started, and the newest run that has finished. */
  #started = 0;
  #finished = 0;

  /** Runs every check. `undefined` if a later run has finished by then: an unresponsive store delays a run. */
  async run(): Promise<UnreadyReasons | undefined> {
    this.#started += 1;
    const run = this.#started;
    const results = await Promise.all(this.checks.map((check) => check()));
    if (run < this.#finished) {
      return undefined;
    }
    this.#finished = run;
    return results.filter((reason) => reason !== undefined);
  }
}
