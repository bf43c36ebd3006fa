import { connect } from "node:http2";

/** An enveloped message of gRPC and Connect streams: a flag, four bytes of length, the message. */
export function enveloped(message: Uint8Array): Buffer {
  const frame = Buffer.alloc(5 + message.length);
  frame.writeUInt32BE(message.length, 1);
  frame.set(message, 5);
  return frame;
}

/** Calls a unary gRPC method once, and resolves with the frame of the response. Rejects unless its status is 0. */
export async function askOnce(url: string, path: string, frame: Buffer): Promise<Buffer> {
  const session = connect(url);
  try {
    return await new Promise((resolve, reject) => {
      session.once("error", reject);
      const stream = session.request({
        ":method": "POST",
        ":path": path,
        "content-type": "application/grpc",
        te: "trailers",
      });
      const chunks: Buffer[] = [];
      let status: unknown;
      const note = (headers: Record<string, unknown>): void => {
        status = headers["grpc-status"] ?? status;
      };
      stream.on("response", note).on("trailers", note);
      stream.on("data", (chunk: Buffer) => chunks.push(chunk));
      stream.once("error", reject);
      stream.once("end", () =>
        String(status) === "0"
          ? resolve(Buffer.concat(chunks))
          : reject(new Error(`${url}${path} responded with grpc-status ${String(status)}`)),
      );
      stream.end(frame);
    });
  } finally {
    session.destroy();
  }
}
