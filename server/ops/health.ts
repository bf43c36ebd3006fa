import { EventEmitter } from "node:events";

/** Why the service should get no traffic: an empty list means that it should. */
export type UnreadyReasons = readonly string[];

/** How old the answer of `current` may be. */
const REFRESH_INTERVAL_MS = 1_000;

/**
 * Whether this server should get traffic, and if not, why. `/readyz` and grpc.health.v1 both answer
 * from here. Each check returns a reason or `undefined`.
 */
export class Health {
  readonly #checks: (() => Promise<string | undefined>)[] = [];
  readonly #changes = new EventEmitter<{ change: [UnreadyReasons] }>();
  readonly #timer: NodeJS.Timeout;
  #draining = false;
  #last: UnreadyReasons = ["The server is starting"];

  constructor() {
    this.#changes.setMaxListeners(0);
    this.#timer = setInterval(() => void this.check(), REFRESH_INTERVAL_MS);
    this.#timer.unref();
  }

  addCheck(check: () => Promise<string | undefined>): void {
    this.#checks.push(check);
  }

  /** Asks every check now. */
  async check(): Promise<UnreadyReasons> {
    const answers = await Promise.all(this.#checks.map((check) => check()));
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
