import { pino } from "pino";
import { startTestApp } from "../support/app.ts";
import { startPlatform } from "./platform.ts";
const lines: string[] = [];
const log = pino({ level: "debug" }, { write: (l: string) => void lines.push(l) });
await using platform = await startPlatform();
for (let round = 0; round < 8; round++) {
  const app = await startTestApp(platform.environment, { log });
  const start = Date.now();
  const report = async () => (await (await fetch(`${app.url}/readyz`)).json()) as { degraded: string[] };
  while ((await report()).degraded.length && Date.now() - start < 30000) await new Promise((r) => setTimeout(r, 100));
  console.log("round", round, "ready", Date.now() - start);
  lines.length = 0;
  await platform.broker.kill9();
  await new Promise((r) => setTimeout(r, 2000 + 1000 * round));
  await platform.broker.restart();
  const t = Date.now();
  let d: string[] = [];
  while ((d = (await report()).degraded).length && Date.now() - t < 25000) await new Promise((r) => setTimeout(r, 100));
  console.log("round", round, "recovered", Date.now() - t, d);
  if (d.length) { console.log(lines.map((l) => { const o = JSON.parse(l); return [new Date(o.time).toISOString().slice(14), o.msg, o.kafkajs, o.err?.message ?? o.error ?? "", o.retryCount ?? "", o.generationId ?? ""].join(" | "); }).filter((l)=>!/listener|connection closed/i.test(l)).slice(-120).join("\n")); process.exit(1); }
  await app.stop();
}
