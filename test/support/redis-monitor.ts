import { randomUUID } from "node:crypto";
import { once } from "node:events";
import { connect } from "node:net";
import { Redis } from "ioredis";
import { until } from "./until.ts";

/** A command that a server has run, as MONITOR reports it. */
export interface MonitoredCommand {
  /** Address of the client, or `lua` for a command of a script. */
  readonly source: string;
  /** The command and its arguments, in latin1: one character per byte. */
  readonly args: readonly string[];
}

/** Records every command that a server runs. */
export interface RedisMonitor extends AsyncDisposable {
  /** Resolves with all commands up to now. */
  commands(): Promise<readonly MonitoredCommand[]>;
}

/** ioredis parses MONITOR too, but splits arguments that contain `" "`, as JSON does. */
export async function startRedisMonitor(port: number): Promise<RedisMonitor> {
  const commands: MonitoredCommand[] = [];
  let rest = "";
  let isMonitoring = false;
  const socket = connect({ port, host: "127.0.0.1" });
  socket.setEncoding("latin1");
  socket.on("error", () => undefined);
  socket.on("data", (text: string) => {
    const lines = (rest + text).split("\r\n");
    rest = lines.pop() ?? "";
    isMonitoring ||= lines.includes("+OK");
    for (const line of lines) commands.push(...commandIn(line));
  });
  await once(socket, "connect");
  socket.write("MONITOR\r\n");
  await until(() => isMonitoring, "the server reports its commands");
  const client = new Redis({ port, host: "127.0.0.1", retryStrategy: () => null, disconnectTimeout: 100 });
  client.on("error", () => undefined);
  return {
    commands: async () => {
      const token = randomUUID();
      await client.echo(token);
      const isToken = ({ args }: MonitoredCommand): boolean => args[1] === token;
      await until(() => commands.some(isToken), "the monitor has every command so far");
      return commands.slice(0, commands.findIndex(isToken));
    },
    [Symbol.asyncDispose]: async () => {
      client.disconnect();
      socket.destroy();
    },
  };
}

function commandIn(line: string): MonitoredCommand[] {
  const match = /^\+[\d.]+ \[\d+ (\S+)\] (.*)$/.exec(line);
  if (match === null) return [];
  const [, source = "", text = ""] = match;
  const args = [...text.matchAll(/"((?:[^"\\]|\\.)*)"/g)].map(([, arg = ""]) => unescaped(arg));
  return [{ source, args }];
}

/** Undoes sdscatrepr of Redis's sds.c. */
function unescaped(text: string): string {
  const letters: Record<string, string> = { n: "\n", r: "\r", t: "\t", a: "\x07", b: "\b" };
  return text.replaceAll(/\\(?:x([0-9a-f]{2})|(.))/g, (_, hex: string | undefined, letter: string) =>
    hex === undefined ? (letters[letter] ?? letter) : String.fromCharCode(Number.parseInt(hex, 16)),
  );
}
