import type { ChildProcessWithoutNullStreams } from "node:child_process";
import { join } from "node:path";
import { createInterface, type Interface } from "node:readline";
import type { OrdersReport } from "./clients/report.ts";
import { type Engine, PROJECT } from "./engine.ts";

const CLIENTS = "tools/compose-walkthrough/clients";
const REPORT_MS_MAX = 60_000;

const root = join(import.meta.dirname, "..", "..");

/** Orders' client in a container on the servers' network. */
export class Orders {
  readonly #child: ChildProcessWithoutNullStreams;
  readonly #lines: Interface;
  #output = "";

  constructor(engine: Engine, image: string, token: string, product: string) {
    const servers = ["inventory-orders", "inventory-1", "inventory-2"].map((name) => `http://${name}:8080`);
    const variables = { TOKEN: token, PRODUCT: product, SERVERS: servers.join(" ") };
    this.#child = engine.start([
      ...["run", "--rm", "--interactive", "--network", `${PROJECT}_inside`, "--name", `${PROJECT}-orders`],
      // A replaced server has another address. A lookup without a response would hold back new connections for 20 s.
      ...["--dns-opt", "timeout:1", "--dns-opt", "attempts:2"],
      ...["--volume", `${join(root, CLIENTS)}:/app/${CLIENTS}:ro`],
      ...Object.entries(variables).flatMap(([name, value]) => ["--env", `${name}=${value}`]),
      ...[image, "node", `${CLIENTS}/orders.ts`],
    ]);
    this.#lines = createInterface({ input: this.#child.stdout });
    this.#child.stderr.setEncoding("utf8").on("data", (text: string) => {
      this.#output += text;
    });
  }

  /** What was done since the last report. */
  report(): Promise<OrdersReport> {
    const reply = this.#reply();
    this.#child.stdin.write("report\n");
    return reply;
  }

  /** Completes the orders that are under way, and ends. */
  async end(): Promise<OrdersReport> {
    const reply = this.#reply();
    this.#child.stdin.end();
    return await reply;
  }

  #reply(): Promise<OrdersReport> {
    return new Promise((resolve, reject) => {
      const fail = (): void => reject(new Error(`Orders' client does not respond:\n${this.#output}`));
      const timer = setTimeout(fail, REPORT_MS_MAX);
      this.#child.once("exit", fail);
      this.#lines.once("line", (line) => {
        clearTimeout(timer);
        this.#child.off("exit", fail);
        resolve(JSON.parse(line));
      });
    });
  }
}
