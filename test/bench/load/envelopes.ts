/** Called with each message, a view of bytes that are reused afterwards. */
export type OnMessage = (bytes: Buffer, start: number, end: number, flags: number) => void;

const HEAD_BYTES = 5;

/** Splits a stream of gRPC or Connect envelopes into messages, without copying those that arrive in one chunk. */
export class Envelopes {
  readonly #onMessage: OnMessage;
  #rest: Buffer | undefined;

  constructor(onMessage: OnMessage) {
    this.#onMessage = onMessage;
  }

  push(bytes: Buffer, start: number, end: number): void {
    if (this.#rest !== undefined) {
      const joined = Buffer.concat([this.#rest, bytes.subarray(start, end)]);
      this.#rest = undefined;
      this.push(joined, 0, joined.length);
      return;
    }
    let at = start;
    while (end - at >= HEAD_BYTES) {
      const messageEnd = at + HEAD_BYTES + bytes.readUInt32BE(at + 1);
      if (messageEnd > end) {
        break;
      }
      this.#onMessage(bytes, at + HEAD_BYTES, messageEnd, bytes[at] ?? 0);
      at = messageEnd;
    }
    if (at < end) {
      this.#rest = Buffer.from(bytes.subarray(at, end));
    }
  }
}
