import type { RecordHeaders } from "../records/headers.ts";

/** One message as Kafka delivered it. Key, value and headers are views of the fetched bytes. */
export interface IncomingMessage {
  readonly topic: string;
  readonly partition: number;
  /** Decimal digits. */
  readonly offset: string;
  readonly key: Buffer | null;
  readonly value: Buffer | null;
  readonly headers: RecordHeaders;
  /** The record's time, ms since 1970, in decimal digits. */
  readonly timestamp: string;
  /** Size of a record that is too large to be read. It has the start of its key, no value, and no headers. */
  readonly oversizedBytes?: number;
}
