import type { ReplyReader } from "../reply.ts";

/** One operation of a batch, in the form that run-batch.lua expects. */
export interface Mutation {
  readonly name: string;
  /** In a Cluster all of one bucket; there is at least one. */
  readonly keys: readonly string[];
  readonly args: readonly (string | number)[];
  /** Number of products that it touches, as far as that is known before it runs. */
  readonly products: number;
  /** Whether it may be sent twice: its step recognises a repetition by an ID or a fence, and then writes nothing. */
  readonly isIdempotent: boolean;
  /** Recorded with each change that it makes. Absent: unknown. */
  readonly actor?: string | undefined;
}

/** Sends mutations to the primaries of their buckets. */
export interface MutationWriter {
  /** Sends a mutation. Rejects with `STORE_UNAVAILABLE` or `OVERLOADED`, and with an `Error` if the script failed. */
  submit(mutation: Mutation): Promise<ReplyReader>;
  /** Number of queued mutations. */
  readonly queued: number;
  /** Resolves when mutations can first be sent. Rejects with `RedisRequirementError`. */
  readonly firstReady: Promise<unknown>;
  /** Why no primary can be written, or `undefined` if one can. */
  readonly unreadyReason: string | undefined;
  /** Calls `run` for a bucket of each primary. Rejects if it fails for all of them. */
  probe(run: (bucket: number) => Promise<unknown>): Promise<void>;
  /** Counts and logs an error reply that came inside the reply of a script. */
  noteErrorReply(text: string): void;
  close(): void;
}
