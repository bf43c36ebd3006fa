import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { type Bench, requireProgram } from "./bench-context.ts";
import { fillCatalog, productIdOf } from "./catalog.ts";
import { wrk, wrkPost } from "./load/wrk.ts";
import { type Contestant, startNodePeer, startPinnedRedis, startService } from "./processes.ts";
import { perCore, takeTurns, warmUp } from "./rounds.ts";

const PRODUCTS = 1_000;
const PATH = "/inventory.v1.StockService/GetStock";
const REQUEST = JSON.stringify({ productId: productIdOf(1) });

/** GetStock in JSON over HTTP/1.1, compared with a bare node:http server. */
export const measureJson: Bench = async (context) => {
  requireProgram("wrk");
  await using servers = new AsyncDisposableStack();
  const redis = servers.use(await startPinnedRedis());
  await fillCatalog(redis.url, PRODUCTS);
  const service = servers.use(await startService(redis));
  const stock = servers.use(
    await startNodePeer("stock-connect.ts", { REDIS_URL: redis.url, PROTOCOL: "h1" }),
  );
  const answer = await askJson(service);
  await askJson(stock);
  const bare = servers.use(
    await startNodePeer("bare-http.ts", { BODY: Buffer.from(answer).toString("base64") }),
  );
  const scriptFile = join(redis.dir, "post.lua");
  await writeFile(scriptFile, wrkPost(REQUEST));
  const turnOf = (server: Contestant) => () => wrk(server, { ...context, path: PATH, scriptFile });
  const contestants = {
    service: turnOf(service),
    "bare node:http": turnOf(bare),
    "connect-node's adapter": turnOf(stock),
  };
  await warmUp(Object.values(contestants), context.signal);
  const turns = await takeTurns(contestants, context);
  const what = "GetStock, JSON over HTTP/1.1";
  const here = perCore(turns.service);
  return [
    {
      what,
      unit: "requests/s per core",
      here,
      peer: { name: "bare node:http", there: perCore(turns["bare node:http"]) },
      target: { atLeast: 0.6 },
    },
    {
      what,
      unit: "requests/s per core",
      here,
      peer: { name: "connect-node's adapter", there: perCore(turns["connect-node's adapter"]) },
    },
  ];
};

async function askJson({ url }: Contestant): Promise<string> {
  const response = await fetch(`${url}${PATH}`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: REQUEST,
  });
  const text = await response.text();
  if (!response.ok) {
    throw new Error(`${url}${PATH} responded with ${response.status}: ${text}`);
  }
  return text;
}
