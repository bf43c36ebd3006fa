import { Code, ConnectError } from "@connectrpc/connect";
import { compressedFlag } from "@connectrpc/connect/protocol";
import { PREFIX_BYTES } from "../fast-path/framing.ts";

/**
 * A body of envelopes that fails with INVALID_ARGUMENT at an envelope with a flag that no request may have. Connect ignores
 * reserved flags, and takes an envelope flagged as trailers or as the end of a stream for the end of the request.
 */
export async function* withCheckedFlags(body: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  const prefix = Buffer.alloc(PREFIX_BYTES);
  let prefixLength = 0;
  let messageLeft = 0;
  for await (const chunk of body) {
    let offset = 0;
    while (offset < chunk.length) {
      if (messageLeft > 0) {
        const skipped = Math.min(messageLeft, chunk.length - offset);
        messageLeft -= skipped;
        offset += skipped;
        continue;
      }
      prefix[prefixLength] = chunk[offset] ?? 0;
      prefixLength += 1;
      offset += 1;
      if (prefixLength === 1) {
        checkFlags(prefix.readUInt8(0));
      }
      if (prefixLength === PREFIX_BYTES) {
        prefixLength = 0;
        messageLeft = prefix.readUInt32BE(1);
      }
    }
    yield chunk;
  }
}

function checkFlags(flags: number): void {
  if ((flags & ~compressedFlag) !== 0) {
    const hex = flags.toString(16).padStart(2, "0");
    throw new ConnectError(
      `The flags of an envelope are 0x${hex}; a request may only have 0x01, compressed`,
      Code.InvalidArgument,
    );
  }
}
