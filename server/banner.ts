import type { App } from "./app.ts";
import type { Config } from "./config.ts";
import { versionLine } from "./ops/build-info.ts";

/** What `npm start` prints for a person: the backends, the address of the page, and commands to paste. */
export function startupBanner(app: App, config: Config): string {
  const unready =
    app.unreadyReasons.length === 0 ? "" : `    ready   not yet: ${app.unreadyReasons.join("; ")}\n`;
  return `
  ${versionLine(app.build)}
    store   ${app.backends.store}
    events  ${app.backends.events}
    page    ${app.publicUrl}/
${unready}
  Try it:
${exampleCalls(app, config)
  .map((call) => `    ${call}\n`)
  .join("")}
`;
}

/** One call by curl and one by grpcurl, of a product that exists if there is one. */
function exampleCalls(app: App, config: Config): string[] {
  const url = app.publicUrl;
  const { host } = new URL(url);
  const curl = config.tls ? "curl -k" : "curl";
  const grpcurl = [
    "grpcurl",
    config.tls ? "-insecure" : "-plaintext",
    config.reflection ? "" : "-import-path proto -proto inventory/v1/stock.proto -proto inventory.proto",
  ]
    .filter((part) => part !== "")
    .join(" ");
  if (app.unreadyReasons.length > 0) {
    return [`${curl} ${url}/readyz`];
  }
  const post = `${curl} -H 'Content-Type: application/json' -d`;
  const service = "inventory.v1.StockService";
  const productId = app.exampleProductId();
  if (productId === undefined) {
    return [`${post} '{}' ${url}/${service}/ListStock`, `${grpcurl} ${host} ${service}/ListStock`];
  }
  const [request, legacyRequest] = [
    shellQuote(JSON.stringify({ productId })),
    shellQuote(JSON.stringify({ id: productId })),
  ];
  return [
    `${post} ${request} ${url}/${service}/GetStock`,
    `echo ${legacyRequest} | ${grpcurl} -d @ ${host} Inventory.Get`,
  ];
}

function shellQuote(text: string): string {
  return `'${text.replaceAll("'", "'\\''")}'`;
}
