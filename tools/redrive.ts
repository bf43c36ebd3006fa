/**
 * Sends the dead letters that are there now back to the topics that they came from, after what made them unfit was
 * fixed. `--dry-run` only lists them. Settings are those of the service: KAFKA_BROKERS and the rest.
 */
import { pino } from "pino";
import { ConfigError, readConfig } from "../server/config.ts";
import { createKafka } from "../server/kafka/client.ts";
import { type RedriveLetter, redrive } from "../server/kafka/redrive.ts";

const exitBadConfig = 2;

const dryRun = process.argv.includes("--dry-run");
const interrupted = new AbortController();
process.once("SIGINT", () => interrupted.abort(new Error("Interrupted; the next run goes on from here")));

try {
  const { kafka: settings } = readConfig();
  if (settings === undefined) {
    throw new ConfigError("KAFKA_BROKERS is not set; it must be host:port,host:port,…");
  }
  const kafka = createKafka(settings, "redrive", pino({ level: "silent" }));
  const { met, redriven } = await redrive({
    kafka,
    settings,
    dryRun,
    onLetter: tell,
    signal: interrupted.signal,
  });
  process.stdout.write(
    dryRun ? `${met} dead letters; none was sent\n` : `${redriven} of ${met} dead letters were sent back\n`,
  );
} catch (error) {
  process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`);
  process.exitCode = error instanceof ConfigError ? exitBadConfig : 1;
}

function tell({ partition, offset, origin }: RedriveLetter): void {
  const place = `${partition}/${offset}`;
  if (origin === undefined) {
    process.stdout.write(`${place}: no dead letter of a topic that is read here; left where it is\n`);
  } else if (dryRun) {
    const from = `${origin.topic} ${origin.partition}/${origin.offset}`;
    process.stdout.write(`${place}: ${origin.reason}, from ${from}: ${origin.detail}\n`);
  }
}
