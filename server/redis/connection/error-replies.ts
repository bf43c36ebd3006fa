import { ReplyError } from "ioredis";
import { InventoryError } from "../../inventory/errors.ts";

/**
 * Error replies with which Redis refuses a command because of its own state or of this user's permissions, by their
 * first word. They are not bugs of the command: the same command runs once the state has changed.
 */
export const REFUSALS = [
  "BUSY",
  "CLUSTERDOWN",
  "DENIED",
  "FENCED",
  "LOADING",
  "MASTERDOWN",
  "MAXCLIENTS",
  "MISCONF",
  "NOAUTH",
  "NOPERM",
  "NOREPLICAS",
  "OOM",
  "READONLY",
  "UNBLOCKED",
  "UNKILLABLE",
  "WRONGPASS",
] as const;
export type Refusal = (typeof REFUSALS)[number];

/** Error replies of a node of a Cluster that does not serve the slot, or not now. Nothing ran. */
export const REDIRECTIONS = ["MOVED", "ASK", "TRYAGAIN", "CLUSTERDOWN"] as const;
export type Redirection = (typeof REDIRECTIONS)[number];

/** Kinds of error replies, as a label of the metrics. */
export const ERROR_REPLIES = [
  ...REFUSALS,
  "ASK",
  "MOVED",
  "NOSCRIPT",
  "TRYAGAIN",
  "WRONGTYPE",
  "other",
] as const;
export type ErrorReplyKind = (typeof ERROR_REPLIES)[number];

/** Refusals whose text does not begin with their kind. */
const TEXTS: readonly (readonly [RegExp, Refusal])[] = [
  [/^ERR max number of clients reached/, "MAXCLIENTS"],
  // Redis 7.0, for a command inside a script: "ERR The user executing the script can't run this command …"
  [/^(ERR )?(The user executing the script can't|ACL failure in script)/, "NOPERM"],
];

/** Whether the error is an error reply of Redis, as opposed to a broken connection. */
export function isErrorReply(error: unknown): error is Error {
  return error instanceof ReplyError;
}

/** The kind of a refusal, or `undefined` if the text of an error reply is none. */
export function refusalOf(text: string): Refusal | undefined {
  const first = /^[A-Z]+/.exec(text)?.[0];
  return REFUSALS.find((refusal) => refusal === first) ?? TEXTS.find(([pattern]) => pattern.test(text))?.[1];
}

/** The redirection that an error is, or that caused it; `undefined` if it is none. */
export function redirectionOf(
  error: unknown,
): { readonly kind: Redirection; readonly text: string } | undefined {
  const reply = error instanceof InventoryError ? error.cause : error;
  const text = reply instanceof Error ? reply.message : "";
  const kind = REDIRECTIONS.find((redirection) => text.startsWith(`${redirection} `));
  return kind === undefined ? undefined : { kind, text };
}

/** The kind of an error reply. */
export function errorReplyKind(text: string): ErrorReplyKind {
  const first = /^[A-Z]+/.exec(text)?.[0];
  return refusalOf(text) ?? ERROR_REPLIES.find((kind) => kind === first) ?? "other";
}

/**
 * Maps the error of a failed command: `STORE_UNAVAILABLE` if Redis did not reply or refused, or the error itself if it
 * indicates a bug.
 */
export function storeError(error: unknown): unknown {
  if (error instanceof InventoryError) {
    return error;
  }
  if (isErrorReply(error)) {
    const refusal = refusalOf(error.message);
    return refusal === undefined ? error : storeRefused(refusal, error);
  }
  return storeUnavailable(error);
}

/** The error for a Redis that does not reply. Whether a mutation happened is then unknown. */
export function storeUnavailable(cause?: unknown): InventoryError {
  return new InventoryError("STORE_UNAVAILABLE", "The stock store is unavailable; try again shortly", {
    cause,
  });
}

/** The error for a Redis that refuses. `cause` has the text of the error reply. */
export function storeRefused(refusal: Refusal, cause: Error): InventoryError {
  return new InventoryError(
    "STORE_UNAVAILABLE",
    `The stock store is unavailable: Redis refuses the operation (${refusal}); try again shortly`,
    { cause },
  );
}
