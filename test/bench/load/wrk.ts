import { type Contestant, runLoad, whileWatching } from "../processes.ts";
import type { Turn } from "../rounds.ts";

const CONNECTIONS = 50;

/** A request to repeat, described in Lua by `scriptFile`. */
export interface Wrk {
  readonly path: string;
  readonly scriptFile: string;
  readonly seconds: number;
  readonly signal: AbortSignal;
}

/** wrk's script for a POST of JSON. */
export function wrkPost(body: string): string {
  return `wrk.method = "POST"
wrk.headers["content-type"] = "application/json"
wrk.body = [==[${body}]==]
`;
}

/** Calls a server over HTTP/1.1 on 50 persistent connections; requests/s. Rejects if a call failed. */
export async function wrk(server: Contestant, { path, scriptFile, seconds, signal }: Wrk): Promise<Turn> {
  const command = [
    "wrk",
    ...["-t", "1", "-c", String(CONNECTIONS), "-d", `${seconds}s`, "-s", scriptFile],
    `${server.url}${path}`,
  ];
  const { result, serverBusy } = await whileWatching(server, () => runLoad(command, signal));
  const { output } = result;
  const rate = Number(/Requests\/sec:\s+([\d.]+)/.exec(output)?.[1]);
  if (!(rate > 0) || /Non-2xx|Socket errors/.test(output)) {
    throw new Error(`wrk reported failures of ${server.url}${path}:\n${output}`);
  }
  return { value: rate, serverBusy, loadBusy: result.cpuSeconds / result.seconds };
}
