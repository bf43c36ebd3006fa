import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, open, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { SupplyService } from "../../gen/inventory/v1/supply_pb.ts";
import { INHERITED_ENVIRONMENT, startAppProcess } from "../support/app.ts";

// Measures an import beside single PutProduct calls, on the same server in the same run: node test/cli/import-rate.ts [ROWS]

const MAIN = join(import.meta.dirname, "../../cli/main.ts");
const ROWS = Number(process.argv[2] ?? 50_000);
/** Single calls, of which so many are in flight at once. */
const CALLS = 5_000;
const CALLS_IN_FLIGHT = [1, 16];

const dir = await mkdtemp(join(tmpdir(), "inventory-rate-"));
try {
  const path = join(dir, "catalog.csv");
  const file = await open(path, "w");
  await file.write("product_id,name,description,price,collection_id,declared\n");
  for (let start = 0; start < ROWS; start += 10_000) {
    const rows = Array.from({ length: Math.min(10_000, ROWS - start) }, (_, n) => {
      const { productId, product, declared } = productOf("rate", start + n);
      return `${productId},${product.name},${product.description},${product.price},${product.collectionId},${declared}\n`;
    });
    await file.write(rows.join(""));
  }
  await file.close();

  await using app = await startAppProcess();
  const supply = createClient(SupplyService, createGrpcTransport({ baseUrl: app.url }));
  const singles: number[] = [];
  for (const inFlight of CALLS_IN_FLIGHT) {
    const startMs = performance.now();
    const numbers = Array.from({ length: CALLS }, (_, n) => n).values();
    const work = async (): Promise<void> => {
      for (const n of numbers) await supply.putProduct(productOf(`single-${inFlight}`, n));
    };
    await Promise.all(Array.from({ length: inFlight }, work));
    const rate = (CALLS / (performance.now() - startMs)) * 1_000;
    singles.push(rate);
    print(
      `single calls, ${inFlight} in flight: ${Math.round(rate)} a second, ${ROWS} in ${(ROWS / rate).toFixed(1)} s`,
    );
  }
  const startMs = performance.now();
  const child = spawn(process.execPath, [MAIN, "import", path, "--url", app.url], {
    env: INHERITED_ENVIRONMENT,
    stdio: ["ignore", "inherit", "inherit"],
  });
  let peakKb = 0;
  const timer = setInterval(async () => {
    peakKb = Math.max(peakKb, await residentKb(child.pid ?? 0));
  }, 100);
  const [code] = (await once(child, "exit")) as [number];
  clearInterval(timer);
  const seconds = (performance.now() - startMs) / 1_000;
  const ratios = singles.map((rate) => (ROWS / seconds / rate).toFixed(1)).join(" and ");
  print(
    `import of ${ROWS} rows: ${seconds.toFixed(1)} s with the start of the process, ${ratios} times the single calls; ` +
      `peak ${Math.round(peakKb / 1_024)} MB resident; exit code ${code}`,
  );
} finally {
  await rm(dir, { recursive: true, force: true });
}

function productOf(prefix: string, n: number) {
  return {
    productId: `${prefix}-${String(n).padStart(7, "0")}`,
    declared: n % 200,
    product: {
      name: `Product ${n}`,
      description: "Undyed canvas with a natural rubber sole",
      price: (n % 100) + 0.5,
      collectionId: "spring",
    },
  };
}

async function residentKb(pid: number): Promise<number> {
  const child = spawn("ps", ["-o", "rss=", "-p", String(pid)], { stdio: ["ignore", "pipe", "ignore"] });
  let text = "";
  for await (const chunk of child.stdout) text += String(chunk);
  return Number(text) || 0;
}

function print(text: string): void {
  process.stdout.write(`${text}\n`);
}
