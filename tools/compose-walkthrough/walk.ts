import { randomInt } from "node:crypto";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { Engine } from "./engine.ts";
import { failContainers } from "./failures.ts";
import { callService } from "./first-calls.ts";
import { Orders } from "./orders.ts";
import { Shop } from "./shoppers.ts";
import { eventually } from "./wait.ts";

const START_MS_MAX = 180_000;
export const PRODUCT = "dress-1";
export const IMAGE = "inventory:0.2.0";
const ROLES = ["orders", "supply", "ops"] as const;

export type Role = (typeof ROLES)[number];
export type Say = (line: string) => void;

/** What the steps share. */
export interface Walk {
  readonly engine: Engine;
  readonly shop: Shop;
  readonly tokens: Readonly<Record<Role, string>>;
  readonly variables: NodeJS.ProcessEnv;
  readonly say: Say;
}

/** All steps, on a deployment that does not exist yet. */
export async function walk(engine: Engine, folder: string, say: Say): Promise<void> {
  const file = join(folder, "auth-tokens");
  await writeFile(file, "");
  const closed = { AUTH_TOKENS_FILE: file, COMMIT: "walkthrough", INSIDE_NETWORK: randomNetwork() };
  await engine.compose(["build", "inventory-1"], closed);
  say("The image is built");
  const { tokens, lines } = await makeTokens(engine);
  await writeFile(file, `${lines.join("\n")}\n`, { mode: 0o644 });
  say("A token for each role, by `docker run`");

  await engine.compose(["up", "-d", "--no-build"], closed);
  const certificate = await eventually(
    () => engine.exec("edge", ["cat", "/data/caddy/pki/authorities/local/root.crt"]),
    "the edge has made its certificate",
    START_MS_MAX,
  );
  const shop = new Shop(certificate);
  await eventually(async () => (await shop.fetch("/")).status === 200, "the page is served", START_MS_MAX);
  say("`up`: the page is served");

  // From now on the host may write through the edge, with a token.
  const open = { ...closed, EDGE_WRITERS: "10.0.0.0/8 172.16.0.0/12 192.168.0.0/16 127.0.0.0/8" };
  const context = { engine, shop, tokens, say };
  await callService({ ...context, variables: closed }, open);

  const orders = new Orders(engine, IMAGE, tokens.orders, PRODUCT);
  await failContainers({ ...context, variables: open }, orders);
}

/** The DNS server of a killed run may still listen in its network. */
function randomNetwork(): string {
  return `10.${randomInt(128, 255)}.${randomInt(1, 255)}`;
}

async function makeTokens(engine: Engine): Promise<{ tokens: Record<Role, string>; lines: string[] }> {
  const tokens: Partial<Record<Role, string>> = {};
  const lines: string[] = [];
  for (const role of ROLES) {
    const output = await engine.do(["run", "--rm", IMAGE, "node", "tools/token.js", role, role]);
    const [, token] = output.split("\n");
    const line = output.split("\n").at(-1);
    if (token === undefined || line === undefined) throw new Error(`No token: ${output}`);
    tokens[role] = token;
    lines.push(line);
  }
  return { tokens: tokens as Record<Role, string>, lines };
}

/** Runs a command of the runbooks in the operator's container. */
export async function operate({ engine, tokens, variables }: Walk, command: string): Promise<string> {
  const environment = { ...variables, OPS_TOKEN: tokens.ops };
  return await engine.compose(
    ["--profile", "operator", "run", "--rm", "-T", "operator", "bash", "-c", command],
    environment,
  );
}
