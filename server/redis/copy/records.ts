import type { Client } from "./clients.ts";

/** Entries of a stream that are read at once. */
const ENTRIES_PER_READ = 500;

/** A string with its remaining lifetime in ms; `undefined` if it does not expire. */
export interface TextRecord {
  readonly text: string;
  readonly ttlMs: number | undefined;
}

export async function readText(client: Client, key: string): Promise<TextRecord | undefined> {
  const [text, ttlMs] = await Promise.all([client.get(key), client.pttl(key)]);
  return text === null ? undefined : { text, ttlMs: ttlMs < 0 ? undefined : ttlMs };
}

export async function writeText(client: Client, key: string, { text, ttlMs }: TextRecord): Promise<void> {
  await (ttlMs === undefined ? client.set(key, text) : client.set(key, text, "PX", Math.max(1, ttlMs)));
}

export type StreamEntry = readonly [id: string, fields: readonly string[]];

/** Reads a stream from its oldest entry, in pages. */
export async function* readStream(client: Client, key: string): AsyncGenerator<readonly StreamEntry[]> {
  let start = "-";
  for (;;) {
    const entries = await client.xrange(key, start, "+", "COUNT", ENTRIES_PER_READ);
    yield entries;
    const last = entries.at(-1);
    if (last === undefined || entries.length < ENTRIES_PER_READ) {
      return;
    }
    start = `(${last[0]}`;
  }
}

const LEDGER_FIELDS = ["D", "A", "S", "H", "F", "V", "T"] as const;

/** The numbers of a ledger. */
export interface LedgerNumbers {
  readonly declared: number;
  readonly adjusted: number;
  readonly sold: number;
  readonly reserved: number;
  readonly safety: number;
}

/** Throws if a field is missing or not an integer. */
export function numbersOf(fields: Readonly<Record<string, string>>): LedgerNumbers {
  const wrong = LEDGER_FIELDS.find((name) => !Number.isSafeInteger(Number(fields[name] || Number.NaN)));
  if (wrong !== undefined) {
    throw new TypeError(`field ${wrong} is ${JSON.stringify(fields[wrong] ?? null)}, not an integer`);
  }
  const [declared, adjusted, sold, reserved, safety] = LEDGER_FIELDS.map((name) => Number(fields[name]));
  return { declared, adjusted, sold, reserved, safety } as LedgerNumbers;
}
