/** The prefix of every message: flags (1 byte) and length (4 bytes). */
const PREFIX_BYTES = 5;
const TRAILERS = 0x80;
/** Maximum length of a message; a longer one is not from this service. */
const MESSAGE_BYTES_MAX = 4_194_304;

/** Calls a server-streaming method over gRPC-Web. Throws on a status other than OK and on a broken stream. */
export async function* callStream(
  url: string,
  request: Uint8Array,
  signal: AbortSignal,
): AsyncGenerator<Uint8Array> {
  const body = new Uint8Array(PREFIX_BYTES + request.length);
  new DataView(body.buffer).setUint32(1, request.length);
  body.set(request, PREFIX_BYTES);
  const response = await fetch(url, {
    method: "POST",
    headers: { "content-type": "application/grpc-web+proto", "x-grpc-web": "1" },
    body,
    signal,
    credentials: "omit",
  });
  const type = response.headers.get("content-type") ?? "";
  if (!response.ok || !response.body || !type.startsWith("application/grpc-web")) {
    throw new Error(`${url} returned HTTP ${response.status} ${type}`);
  }
  const reader = response.body.getReader();
  let buffered = new Uint8Array(0);
  for (;;) {
    const { done, value } = await reader.read();
    if (done) throw new Error(`${url} ended without a status`);
    buffered = concat(buffered, value);
    while (buffered.length >= PREFIX_BYTES) {
      const length = new DataView(buffered.buffer, buffered.byteOffset).getUint32(1);
      if (length > MESSAGE_BYTES_MAX) throw new Error(`${url} sent a message of ${length} bytes`);
      const end = PREFIX_BYTES + length;
      if (buffered.length < end) break;
      const message = buffered.slice(PREFIX_BYTES, end);
      const isTrailers = (buffered[0] ?? 0) & TRAILERS;
      buffered = buffered.slice(end);
      if (!isTrailers) yield message;
      else return checkTrailers(url, new TextDecoder().decode(message));
    }
  }
}

function checkTrailers(url: string, text: string): void {
  const status = /^grpc-status:\s*(\d+)/im.exec(text)?.[1];
  if (status !== "0") throw new Error(`${url} ended with gRPC status ${status}`);
}

function concat(a: Uint8Array, b: Uint8Array): Uint8Array<ArrayBuffer> {
  const all = new Uint8Array(a.length + b.length);
  all.set(a);
  all.set(b, a.length);
  return all;
}
