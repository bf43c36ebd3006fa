import type { Logger } from "pino";
import { InventoryError } from "../../inventory/errors.ts";
import { refusalOf } from "../connection/error-replies.ts";

/**
 * Checks whether mutations can run by running one that changes no product. Only a write shows that Redis refuses
 * writes: with its memory full, its disk failing or too few replicas it still serves every read.
 */
export class WriteProbe {
  readonly #run: () => Promise<void>;
  readonly #log: Logger;
  #running: Promise<string | undefined> | undefined;
  #failingSince: number | undefined;

  /** `run` runs the mutation, and rejects as mutations do. */
  constructor(run: () => Promise<void>, log: Logger) {
    this.#run = run;
    this.#log = log;
  }

  /** Why mutations cannot run, or `undefined` if they can. Calls at the same time share one probe. */
  unreadyReason(): Promise<string | undefined> {
    this.#running ??= this.#probe().finally(() => {
      this.#running = undefined;
    });
    return this.#running;
  }

  async #probe(): Promise<string | undefined> {
    const reason = await this.#run().then(() => undefined, describe);
    const now = performance.now();
    if (reason !== undefined) {
      this.#failingSince ??= now;
    } else if (this.#failingSince !== undefined) {
      this.#log.info({ outageMs: Math.round(now - this.#failingSince) }, "Redis accepts writes again");
      this.#failingSince = undefined;
    }
    return reason;
  }
}

/** The failure of a probe as a sentence for an operator. `undefined` if Redis is only busy. */
function describe(error: unknown): string | undefined {
  if (error instanceof InventoryError && error.code === "OVERLOADED") {
    return undefined;
  }
  const cause = error instanceof Error && error.cause instanceof Error ? error.cause : error;
  const text = cause instanceof Error ? cause.message : String(cause);
  return refusalOf(text) === undefined
    ? `Redis does not run mutations: ${text}`
    : `Redis refuses writes: ${text}`;
}
