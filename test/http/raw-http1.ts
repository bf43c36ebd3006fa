import { once } from "node:events";
import { connect, type Socket } from "node:net";

/** A response as it is on the wire. */
export interface RawResponse {
  readonly status: number;
  /** By name in lower case. A field that occurs several times is joined with commas. */
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string;
}

/** Sends bytes that no client library would send, and returns every response until the server closes the connection. */
export async function exchange(port: number, bytes: string): Promise<RawResponse[]> {
  const socket = connect({ port, host: "127.0.0.1" });
  const received = collect(socket);
  socket.write(Buffer.from(bytes, "latin1"));
  return parseResponses(await received, bytes.startsWith("HEAD "));
}

/** The same where the server keeps the connection open: waits for `count` complete responses. */
export async function exchangeOpen(port: number, bytes: string, count: number): Promise<RawResponse[]> {
  const socket = connect({ port, host: "127.0.0.1" });
  try {
    socket.write(Buffer.from(bytes, "latin1"));
    let text = "";
    for await (const chunk of socket) {
      text += (chunk as Buffer).toString("latin1");
      const responses = parseResponses(text);
      if (responses.length >= count) return responses;
    }
    return parseResponses(text);
  } finally {
    socket.destroy();
  }
}

async function collect(socket: Socket): Promise<string> {
  let text = "";
  socket.on("data", (chunk: Buffer) => {
    text += chunk.toString("latin1");
  });
  // A reset after the response is no fault of it.
  socket.on("error", () => {});
  await once(socket, "close");
  return text;
}

/** The complete responses in a text. Interim ones (1xx) are left out. Responses to HEAD have no content. */
function parseResponses(text: string, isHead = false): RawResponse[] {
  const responses: RawResponse[] = [];
  let rest = text;
  while (rest !== "") {
    const headEnd = rest.indexOf("\r\n\r\n");
    if (headEnd < 0) break;
    const [statusLine = "", ...lines] = rest.slice(0, headEnd).split("\r\n");
    const status = Number(/^HTTP\/1\.1 (\d{3}) /.exec(statusLine)?.[1]);
    const headers: Record<string, string> = {};
    for (const line of lines) {
      const colon = line.indexOf(":");
      const name = line.slice(0, colon).toLowerCase();
      const value = line.slice(colon + 1).trim();
      headers[name] = headers[name] === undefined ? value : `${headers[name]}, ${value}`;
    }
    rest = rest.slice(headEnd + 4);
    if (status < 200) continue;
    const body = isHead ? { text: rest, rest: "" } : takeBody(rest, status, headers);
    if (body === undefined) break;
    responses.push({ status, headers, body: body.text });
    rest = body.rest;
  }
  return responses;
}

function takeBody(
  text: string,
  status: number,
  headers: Readonly<Record<string, string>>,
): { readonly text: string; readonly rest: string } | undefined {
  if (status === 204 || status === 304) return { text: "", rest: text };
  const length = headers["content-length"];
  if (length !== undefined) {
    const bytes = Number(length);
    return text.length < bytes ? undefined : { text: text.slice(0, bytes), rest: text.slice(bytes) };
  }
  if (headers["transfer-encoding"] !== "chunked") return { text, rest: "" };
  let body = "";
  for (let rest = text; ; ) {
    const [, size = ""] = /^([0-9a-f]+)\r\n/.exec(rest) ?? [];
    const start = size.length + 2;
    const end = start + Number.parseInt(size, 16);
    if (size === "" || rest.length < end + 2) return undefined;
    if (end === start) return { text: body, rest: rest.slice(end + 2) };
    body += rest.slice(start, end);
    rest = rest.slice(end + 2);
  }
}
