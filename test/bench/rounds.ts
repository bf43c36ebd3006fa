/** What one turn measured. */
export interface Turn {
  /** Requests, deliveries, … a second, or whatever the row's unit is. */
  readonly value: number;
  /** How much of its core the server under test used meanwhile, 0 to 1. */
  readonly serverBusy?: number | undefined;
  /** How much of a core the load generator used: at 1 it is the limit, and not the server. */
  readonly loadBusy?: number | undefined;
}

/** Those who take turns, by name. One that is undefined is left out, and has no turns. */
export type Contestants<Name extends string> = Readonly<Record<Name, (() => Promise<Turn>) | undefined>>;

interface RoundsOptions {
  readonly rounds: number;
  readonly signal: AbortSignal;
  readonly note: (line: string) => void;
}

/**
 * Lets all take turns, A B C A B C …, so that each meets the same moods of the machine. A first round goes
 * unrecorded: compilers warm up, connection pools fill.
 */
export async function takeTurns<Name extends string>(
  contestants: Contestants<Name>,
  { rounds, signal, note }: RoundsOptions,
): Promise<Readonly<Record<Name, Turn[]>>> {
  const names = Object.keys(contestants) as Name[];
  const turns = Object.fromEntries(names.map((name) => [name, []])) as unknown as Record<Name, Turn[]>;
  for (let round = 0; round <= rounds; round++) {
    for (const name of names) {
      signal.throwIfAborted();
      const turn = await contestants[name]?.();
      if (round > 0 && turn !== undefined) {
        turns[name].push(turn);
      }
    }
  }
  for (const name of names.filter((each) => turns[each].length > 0)) {
    note(busyText(name, turns[name]));
  }
  return turns;
}

/** What each turn measured. */
export function values(turns: readonly Turn[]): number[] {
  return turns.map(({ value }) => value);
}

/** What each turn would have measured had the server had a whole core: for peers that wait, or on a busy machine. */
export function perCore(turns: readonly Turn[]): number[] {
  return turns.map(({ value, serverBusy = 1 }) => value / serverBusy);
}

/** Who was the limit. */
function busyText(name: string, turns: readonly Turn[]): string {
  const server = turns.map(({ serverBusy }) => serverBusy);
  const load = turns.map(({ loadBusy }) => loadBusy);
  return `${name}: server ${percentages(server)}, load generator ${percentages(load)} of a core`;
}

function percentages(shares: readonly (number | undefined)[]): string {
  const known = shares.filter((share) => share !== undefined);
  if (known.length === 0) {
    return "unknown";
  }
  const [low, high] = [Math.min(...known), Math.max(...known)].map((share) => Math.round(share * 100));
  return low === high ? `${low}%` : `${low}–${high}%`;
}
