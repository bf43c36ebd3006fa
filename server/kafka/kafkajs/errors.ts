import { describeErrorCode } from "./internals.ts";

/** Error codes of the protocol that callers distinguish. */
export const ErrorCode = {
  unknown: -1,
  none: 0,
  offsetOutOfRange: 1,
  corruptMessage: 2,
  unknownTopicOrPartition: 3,
  leaderNotAvailable: 5,
  notLeaderForPartition: 6,
  messageTooLarge: 10,
  recordListTooLarge: 18,
  topicAuthorizationFailed: 29,
  topicAlreadyExists: 36,
  duplicateSequenceNumber: 46,
  kafkaStorageError: 56,
  fencedLeaderEpoch: 74,
  unknownLeaderEpoch: 75,
  unknownTopicId: 100,
} as const;

/** A smaller record may be accepted, and the same one never will. */
export const TOO_LARGE: ReadonlySet<number> = new Set([
  ErrorCode.messageTooLarge,
  ErrorCode.recordListTooLarge,
]);

/** An error that a broker answered. */
export class BrokerError extends Error {
  override readonly name = "BrokerError";
  readonly code: number;
  /** For example `TOPIC_AUTHORIZATION_FAILED`. */
  readonly type: string;
  /** Whether the same request may succeed later. */
  readonly isRetriable: boolean;

  constructor(code: number, detail?: string | null) {
    const { type, message, isRetriable } = describeErrorCode(code);
    super(detail ? `${type}: ${detail}` : message);
    this.code = code;
    this.type = type;
    this.isRetriable = isRetriable;
  }
}

/** Throws unless the code means success. */
export function throwIfError(code: number, detail?: string | null): void {
  if (code !== ErrorCode.none) {
    throw new BrokerError(code, detail);
  }
}
