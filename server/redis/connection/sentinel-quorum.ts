import type { Redis } from "ioredis";
import type { SentinelEndpoint } from "./endpoint.ts";
import type { PrimaryConfirmation } from "./primaries.ts";
import { connectToSentinel } from "./sentinel-monitor.ts";

/** How long a Sentinel may take to answer, ms. */
const ANSWER_MS_MAX = 200;

/** Asks the Sentinels about the primary. Connects at the first question. */
export class SentinelQuorum implements PrimaryConfirmation {
  readonly by = "a majority of the Sentinels";
  readonly #endpoint: SentinelEndpoint;
  #clients: readonly Redis[] | undefined;

  constructor(endpoint: SentinelEndpoint) {
    this.#endpoint = endpoint;
  }

  /**
   * Whether most Sentinels name the Redis process that `client` is connected to as the primary and consider it up, and none
   * of those that answer is failing over. An automatic failover needs a majority that considers the primary down.
   */
  async confirms(client: Redis): Promise<boolean> {
    const runId = /^run_id:(\w+)/m.exec(await client.info("server"))?.[1] ?? "";
    this.#clients ??= this.#endpoint.addresses.map((address) => {
      const client = connectToSentinel(address, this.#endpoint, { commandTimeout: ANSWER_MS_MAX });
      // The monitor of the Sentinels logs those that are unreachable.
      return client.on("error", () => {});
    });
    const answers = await Promise.allSettled(
      this.#clients.map((client) => client.call("SENTINEL", "MASTER", this.#endpoint.masterName)),
    );
    const states = answers.flatMap((answer) =>
      answer.status === "fulfilled" ? [fieldsOf(answer.value)] : [],
    );
    const confirming = states.filter(
      (state) => state.get("runid") === runId && state.get("flags") === "master",
    );
    const isFailingOver = states.some((state) => state.get("flags")?.includes("failover_in_progress"));
    return confirming.length * 2 > this.#clients.length && !isFailingOver;
  }

  close(): void {
    for (const client of this.#clients ?? []) {
      client.disconnect();
    }
  }
}

/** Names and values in turn, as the Redis documentation of SENTINEL MASTER has them. */
function fieldsOf(reply: unknown): Map<string, string> {
  const texts = Array.isArray(reply) ? reply.map(String) : [];
  const fields = new Map<string, string>();
  for (let i = 0; i + 1 < texts.length; i += 2) {
    fields.set(texts[i] ?? "", texts[i + 1] ?? "");
  }
  return fields;
}
