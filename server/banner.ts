import type { App } from "./app.ts";
import type { Config } from "./config.ts";

/** What `npm start` tells a person: what it runs on, where the page is, and a line each to paste. */
export function startupBanner(app: App, config: Config): string {
  const { host } = new URL(app.url);
  const productId = config.demo ? "demo-01" : "p1";
  const insecure = config.tls ? "-insecure" : "-plaintext";
  return `
  Inventory service
    store   ${app.runsOn.store}
    events  ${app.runsOn.events}
    page    ${app.url}/

  Try it:
    curl ${config.tls ? "-k " : ""}-H 'Content-Type: application/json' -d '{"productId":"${productId}"}' ${app.url}/inventory.v1.StockService/GetStock
    echo '{"id":"${productId}"}' | grpcurl ${insecure} -d @ ${host} Inventory.Get

`;
}
