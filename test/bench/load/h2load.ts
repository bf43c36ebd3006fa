import { type Contestant, runLoad, whileWatching } from "../processes.ts";
import type { Turn } from "../rounds.ts";

const CONNECTIONS = 8;
const STREAMS_PER_CONNECTION = 16;
/** Responses may differ in length by digits of their time. */
const ANSWERED_SHARE_MIN = 0.95;

/** A gRPC call to repeat. */
export interface H2Load {
  readonly path: string;
  /** The file with the frame of the request. */
  readonly bodyFile: string;
  /** Length of the response's frame. An error has none, and h2load does not recognize gRPC errors. */
  readonly answerBytes: number;
  readonly seconds: number;
  readonly signal: AbortSignal;
}

/** Calls a server over h2c on 8 connections of 16 streams; requests/s. Rejects if a call failed. */
export async function h2load(
  server: Contestant,
  { path, bodyFile, answerBytes, seconds, signal }: H2Load,
): Promise<Turn> {
  const command = [
    "h2load",
    ...["-t", "1", "-c", String(CONNECTIONS), "-m", String(STREAMS_PER_CONNECTION)],
    ...["-D", String(seconds), "-d", bodyFile],
    ...["-H", "content-type: application/grpc", "-H", "te: trailers"],
    `${server.url}${path}`,
  ];
  const { result, serverBusy } = await whileWatching(server, () => runLoad(command, signal));
  const { output } = result;
  const rate = Number(/finished in [^,]+, ([\d.]+) req\/s/.exec(output)?.[1]);
  const faults = /(\d+) failed, (\d+) errored, (\d+) timeout/.exec(output)?.slice(1).map(Number);
  const done = Number(/(\d+) done/.exec(output)?.[1]);
  const bytes = Number(/\((\d+)\) data/.exec(output)?.[1]);
  if (!(bytes >= done * answerBytes * ANSWERED_SHARE_MIN)) {
    throw new Error(`${server.url}${path} responded to ${done} calls with ${bytes} bytes: some failed`);
  }
  if (!(rate > 0) || faults === undefined || faults.some((count) => count > 0)) {
    throw new Error(`h2load reported failures of ${server.url}${path}:\n${output}`);
  }
  return { value: rate, serverBusy, loadBusy: result.cpuSeconds / result.seconds };
}
