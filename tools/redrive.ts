/**
 * Sends the current dead letters back to their source topics, after the cause was fixed. `--dry-run` only lists them.
 * Takes the service's settings from the environment: KAFKA_BROKERS and the rest.
 */
import { pino } from "pino";
import { ConfigError, readConfig } from "../server/config.ts";
import { printable } from "../server/kafka/dead-letters/printable.ts";
import { type RedriveLetter, redrive } from "../server/kafka/dead-letters/redrive.ts";
import { createKafka } from "../server/kafka/kafkajs/client.ts";

const exitBadConfig = 2;

const dryRun = process.argv.includes("--dry-run");
const interrupted = new AbortController();
process.once("SIGINT", () => interrupted.abort(new Error("Interrupted; the next run continues from here")));

try {
  const { kafka: settings } = readConfig();
  if (settings === undefined) {
    throw new ConfigError("KAFKA_BROKERS is not set; it must be host:port,host:port,…");
  }
  const kafka = createKafka(settings, "redrive", pino({ level: "silent" }));
  const { found, redriven } = await redrive({
    kafka,
    settings,
    dryRun,
    onLetter: report,
    signal: interrupted.signal,
  });
  process.stdout.write(
    dryRun
      ? `${found} dead letters; none was sent\n`
      : `${redriven} of ${found} dead letters were sent back\n`,
  );
} catch (error) {
  process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`);
  process.exitCode = error instanceof ConfigError ? exitBadConfig : 1;
}

function report({ partition, offset, origin, problem }: RedriveLetter): void {
  const place = `${partition}/${offset}`;
  if (origin === undefined) {
    process.stdout.write(`${place}: not a dead letter of a topic that this service reads; left as it is\n`);
    return;
  }
  const from = `${origin.topic} ${origin.partition}/${printable(origin.offset)}`;
  const reason = printable(origin.reason);
  if (problem !== undefined) {
    process.stdout.write(`${place}: ${reason}, from ${from}: not sent: ${problem}\n`);
  } else if (dryRun) {
    process.stdout.write(`${place}: ${reason}, from ${from}: ${printable(origin.detail)}\n`);
  }
}
