/** Five bytes before every message: flags, and its length. */
const PREFIX_BYTES = 5;
const TRAILERS = 0x80;
/** A message longer than this is none of ours. */
const MESSAGE_BYTES_MAX = 4_194_304;

/** Calls a server-streaming method over gRPC-Web; throws when it ends with anything but OK, or breaks. */
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
    throw new Error(`${url} answered ${response.status} ${type}`);
  }
  const reader = response.body.getReader();
  let held = new Uint8Array(0);
  for (;;) {
    const { done, value } = await reader.read();
    if (done) throw new Error(`${url} broke off`);
    held = joined(held, value);
    while (held.length >= PREFIX_BYTES) {
      const length = new DataView(held.buffer, held.byteOffset).getUint32(1);
      if (length > MESSAGE_BYTES_MAX) throw new Error(`${url} sent a message of ${length} bytes`);
      const end = PREFIX_BYTES + length;
      if (held.length < end) break;
      const message = held.slice(PREFIX_BYTES, end);
      const isTrailers = (held[0] ?? 0) & TRAILERS;
      held = held.slice(end);
      if (!isTrailers) yield message;
      else return checkTrailers(url, new TextDecoder().decode(message));
    }
  }
}

function checkTrailers(url: string, text: string): void {
  const status = /^grpc-status:\s*(\d+)/im.exec(text)?.[1];
  if (status !== "0") throw new Error(`${url} ended with gRPC status ${status}`);
}

function joined(a: Uint8Array, b: Uint8Array): Uint8Array<ArrayBuffer> {
  const all = new Uint8Array(a.length + b.length);
  all.set(a);
  all.set(b, a.length);
  return all;
}
