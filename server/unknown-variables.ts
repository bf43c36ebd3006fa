/** A variable that has no effect, although its name looks like one of this service's. */
export interface UnknownVariable {
  readonly name: string;
  /** What was probably meant: the nearest known variable, or else those that begin with the same word. */
  readonly meant: readonly string[];
}

/** Variables that begin with one of these are expected to belong to this service. */
const OWN_PREFIXES = ["INVENTORY_", "KAFKA_", "REDIS_", "AUTH_", "TLS_", "DRAIN_"];

/** Variables that the environment of a process usually has and that only look like a misspelled one. */
const FOREIGN_NAMES = [
  "LANG",
  /^npm_/i,
  // Kubernetes and Docker describe each service in variables such as REDIS_SERVICE_HOST and REDIS_PORT_6379_TCP.
  /_SERVICE_(HOST|PORT(_\w+)?)$/,
  /_PORT_\d+_(TCP|UDP)(_(PROTO|PORT|ADDR))?$/,
  // The command line's (cli/settings.ts), which a shell may have for both.
  /^INVENTORY_(URL|TOKEN|TOKEN_FILE|CA_FILE|CERT_FILE|KEY_FILE|TIMEOUT)$/,
  // Apache Kafka and Redis have these for themselves.
  /_(VERSION|HOME|OPTS)$/,
];
const FOREIGN_VALUE = /^(tcp|udp):\/\//;

/** A shorter beginning of a name, such as `LOG`, says too little. */
const BEGINNING_LENGTH_MIN = 6;

/** Finds misspelled variables in an environment. Empty variables count as unset. */
export function findUnknownVariables(
  environment: Readonly<Record<string, string | undefined>>,
  known: readonly string[],
): UnknownVariable[] {
  return Object.entries(environment)
    .filter(([name, value]) => value && !known.includes(name) && !isForeign(name, value))
    .map(([name]) => ({ name, meant: findMeant(name, known) }))
    .filter(({ meant }) => meant.length > 0);
}

function isForeign(name: string, value: string): boolean {
  return (
    FOREIGN_VALUE.test(value) ||
    FOREIGN_NAMES.some((each) => (typeof each === "string" ? each === name : each.test(name)))
  );
}

function findMeant(name: string, known: readonly string[]): readonly string[] {
  const nearest = findNearest(name, known) ?? findNearest(name.replace(/^INVENTORY_/i, ""), known);
  if (nearest !== undefined) {
    return [nearest];
  }
  const prefix = OWN_PREFIXES.find((each) => name.toUpperCase().startsWith(each));
  if (prefix === undefined) {
    return [];
  }
  const family = known.filter((each) => each.startsWith(prefix));
  const shared = family.map((each) => countSharedWords(name, each));
  const most = Math.max(...shared);
  return most > 1 ? family.filter((_, index) => shared[index] === most) : family;
}

/** The known variable that the name is a misspelling or a beginning of. */
function findNearest(name: string, known: readonly string[]): string | undefined {
  const letters = lettersOf(name);
  let nearest: { readonly name: string; readonly distance: number } | undefined;
  for (const each of known) {
    const target = lettersOf(each);
    const distance = editDistance(letters, target);
    if (distance <= editsMax(target) && distance < (nearest?.distance ?? Number.POSITIVE_INFINITY)) {
      nearest = { name: each, distance };
    }
  }
  const isBeginning = (each: string): boolean =>
    name.includes("_") && letters.length >= BEGINNING_LENGTH_MIN && lettersOf(each).startsWith(letters);
  return nearest?.name ?? known.find(isBeginning);
}

/** `redis-url`, `RedisUrl` and `REDIS_URL` are spellings of one name. */
function lettersOf(name: string): string {
  return name.toUpperCase().replaceAll(/[^A-Z0-9]/g, "");
}

/** In a short name, two edits lead to too many other words. */
function editsMax(letters: string): number {
  if (letters.length < 8) return 1;
  return letters.length < 12 ? 2 : 3;
}

/** `KAFKA_BROKER_LIST` shares two words with `KAFKA_BROKERS`. */
function countSharedWords(name: string, other: string): number {
  const words = other.split("_");
  const isShared = (word: string): boolean =>
    words.some((each) => each === word || editDistance(each, word) <= (word.length > 3 ? 1 : 0));
  return new Set(name.toUpperCase().split("_")).values().filter(isShared).toArray().length;
}

/**
 * Inserted, deleted, replaced and transposed letters between two texts: the optimal string alignment
 * distance.
 */
function editDistance(a: string, b: string): number {
  let beforeLast: number[] = [];
  let last = Array.from({ length: b.length + 1 }, (_, column) => column);
  for (let row = 1; row <= a.length; row += 1) {
    const current = [row];
    for (let column = 1; column <= b.length; column += 1) {
      const isSame = a[row - 1] === b[column - 1];
      let least = Math.min(
        (last[column] ?? 0) + 1,
        (current[column - 1] ?? 0) + 1,
        (last[column - 1] ?? 0) + (isSame ? 0 : 1),
      );
      if (row > 1 && column > 1 && a[row - 1] === b[column - 2] && a[row - 2] === b[column - 1]) {
        least = Math.min(least, (beforeLast[column - 2] ?? 0) + 1);
      }
      current.push(least);
    }
    [beforeLast, last] = [last, current];
  }
  return last[b.length] ?? 0;
}
