import { execFile } from "node:child_process";
import { chown, mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { promisify } from "node:util";
import { freePort } from "../../support/free-port.ts";
import { need } from "../../support/programs.ts";
import { startServerProcess } from "../../support/server-process.ts";
import { Hopeless, until } from "../../support/until.ts";
import { cpuSecondsOfTree, runLoad } from "../processes.ts";

const SQL = join(import.meta.dirname, "postgres");
const START_MS_MAX = 30_000;
const STOP_MS_MAX = 30_000;
const CLIENTS = 50;
/** The superuser of the cluster, whatever the user of the system is. */
const USER = "bench";
const run = promisify(execFile);

/** PostgreSQL in a cluster of its own in a temporary folder, with the ledgers of a catalog. */
export interface PostgresServer extends AsyncDisposable {
  /** For clients over TCP. */
  readonly url: string;
  /** CPU seconds used by all its processes; `undefined` without /proc. */
  readonly cpuSeconds: () => Promise<number | undefined>;
  /** Runs SQL and returns its rows, unaligned. */
  readonly query: (sql: string) => Promise<string>;
  /**
   * Runs the transactions of Reserve and Commit by pgbench, 50 clients, on the products with these numbers; orders/s. Rejects
   * if a transaction failed.
   */
  readonly pgbench: (options: PgbenchOptions) => Promise<number>;
}

export interface PgbenchOptions {
  /** Each call of Orders is a transaction of plain statements, or a single statement. */
  readonly form: "transactions" | "statements";
  readonly firstProduct: number;
  readonly lastProduct: number;
  readonly seconds: number;
  readonly signal: AbortSignal;
}

/**
 * Each commit waits for the disk (`fsync` and `synchronous_commit` are on by default). The WAL has room for a run, so that no
 * checkpoint falls into a turn. Not pinned: it may use every core.
 */
const SETTINGS = {
  listen_addresses: "127.0.0.1",
  max_connections: "200",
  shared_buffers: "512MB",
  synchronous_commit: "on",
  max_wal_size: "4GB",
  checkpoint_timeout: "30min",
} as const;

/** Starts a cluster with a ledger of `units` for each product that `productIds` names. */
export async function startPostgres(productIds: readonly string[], units: number): Promise<PostgresServer> {
  const bin = dirname(need("postgres").path);
  const dir = await mkdtemp(join(tmpdir(), "inventory-postgres-"));
  const asUser = await unprivileged(dir);
  const port = await freePort();
  const data = join(dir, "data");
  const remove = () => rm(dir, { recursive: true, force: true });
  try {
    const initdb = [join(bin, "initdb"), "-D", data, "-U", USER, "--auth=trust", "-E", "UTF8", "--locale=C"];
    await runFirst([...asUser, ...initdb], dir);
    const settings = Object.entries({ ...SETTINGS, port, unix_socket_directories: dir });
    const [command = "", ...args] = [
      ...[...asUser, join(bin, "postgres"), "-D", data],
      ...settings.flatMap(([name, value]) => ["-c", `${name}=${value}`]),
    ];
    const server = await startServerProcess({
      command,
      args,
      logFile: join(dir, "log"),
      removeOnCrash: dir,
      cwd: dir,
    });
    const stop = async (): Promise<void> => {
      // A fast shutdown: it does not wait for clients.
      await server.end("SIGINT", STOP_MS_MAX);
      await remove();
    };
    const connection = ["-h", dir, "-p", String(port), "-U", USER];
    const query = async (sql: string): Promise<string> => {
      const psql = [...connection, "-d", "postgres", "-v", "ON_ERROR_STOP=1", "-qAtc", sql];
      const { stdout } = await run(join(bin, "psql"), psql);
      return stdout.trim();
    };
    try {
      await until(
        async () => {
          if (!server.running()) {
            throw new Hopeless(`PostgreSQL has not started: ${server.describe()}`);
          }
          return (await query("SELECT 1").catch(() => "")) === "1";
        },
        "PostgreSQL responds",
        START_MS_MAX,
      );
      await query(await readFile(join(SQL, "schema.sql"), "utf8"));
      await query(
        `INSERT INTO ledgers (product_id, on_hand) SELECT unnest('{${productIds.join()}}'::text[]), ${units}`,
      );
      await query("VACUUM ANALYZE");
    } catch (error) {
      await stop();
      throw error;
    }
    return {
      url: `postgres://${USER}@127.0.0.1:${port}/postgres`,
      cpuSeconds: () => cpuSecondsOfTree(server.pid),
      query,
      pgbench: async ({ form, firstProduct, lastProduct, seconds, signal }) => {
        const command = [
          ...[
            join(bin, "pgbench"),
            ...connection,
            "-n",
            "-M",
            "prepared",
            "-f",
            join(SQL, `${form}.pgbench`),
          ],
          ...["-D", `first=${firstProduct}`, "-D", `last=${lastProduct}`],
          ...["-c", String(CLIENTS), "-j", "1", "-T", String(Math.max(1, Math.round(seconds))), "postgres"],
        ];
        const { output } = await runLoad(command, signal, { pinned: false });
        const rate = Number(/^tps = ([\d.]+)/m.exec(output)?.[1]);
        if (!(rate > 0) || !/failed transactions: 0 /.test(output)) {
          throw new Error(`pgbench reported failures:\n${output.slice(-2_000)}`);
        }
        return rate;
      },
      [Symbol.asyncDispose]: stop,
    };
  } catch (error) {
    await remove();
    throw error;
  }
}

/**
 * The prefix of a command that runs it without the privileges of root, as whom PostgreSQL refuses to start: as the user that
 * Debian's package creates. Gives that user the folder.
 */
async function unprivileged(dir: string): Promise<string[]> {
  if (process.getuid?.() !== 0) {
    return [];
  }
  const idOf = async (flag: string) => Number((await run("id", [flag, "postgres"])).stdout);
  const [user, group] = await Promise.all([idOf("-u"), idOf("-g")]);
  await chown(dir, user, group);
  return ["setpriv", `--reuid=${user}`, `--regid=${group}`, "--clear-groups"];
}

async function runFirst([command = "", ...args]: readonly string[], cwd: string): Promise<void> {
  await run(command, args, { cwd });
}
