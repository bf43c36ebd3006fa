import { type Contestant, runLoad, whileWatching } from "../processes.ts";
import type { Turn } from "../rounds.ts";

const CONNECTIONS = 8;
const STREAMS_PER_CONNECTION = 16;
/** An answer may be shorter by a digit of its time. */
const ANSWERED_SHARE_MIN = 0.95;

/** One gRPC call, over and over. */
export interface H2Load {
  readonly path: string;
  /** The file that holds the request's frame. */
  readonly bodyFile: string;
  /** Length of the answer's frame: an error has none, and h2load does not know gRPC's errors. */
  readonly answerBytes: number;
  readonly seconds: number;
  readonly signal: AbortSignal;
}

/** Calls a server over h2c from 8 connections of 16 streams; requests/s. Rejects where one call failed. */
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
    throw new Error(`${server.url}${path} answered ${done} calls with ${bytes} bytes: some were refused`);
  }
  if (!(rate > 0) || faults === undefined || faults.some((count) => count > 0)) {
    throw new Error(`h2load met failures at ${server.url}${path}:\n${output}`);
  }
  return { value: rate, serverBusy, loadBusy: result.cpuSeconds / result.seconds };
}
