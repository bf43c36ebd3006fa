/** The result of one turn. */
export interface Turn {
  /** In the unit of the row, such as requests per second. */
  readonly value: number;
  /** Share of its core that the server under test used, 0 to 1. */
  readonly serverBusy?: number | undefined;
  /** Share of a core that the load generator used. At 1 it is the bottleneck, and not the server. */
  readonly loadBusy?: number | undefined;
}

/** The contestants by name. An undefined one is left out, and has no turns. */
export type Contestants<Name extends string> = Readonly<Record<Name, (() => Promise<Turn>) | undefined>>;

interface RoundsOptions {
  readonly rounds: number;
  readonly signal: AbortSignal;
  readonly note: (line: string) => void;
}

/**
 * Runs all in turns, A B C A B C …, so that each meets the same conditions of the machine. The first round is a
 * warm-up and not recorded.
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

/**
 * Turns before the first round, for servers that run on V8: a call becomes three times cheaper over the first 100,000, while
 * it is compiled. Without them a round would compare the progress of the compilers.
 */
const WARM_UP_TURNS = 4;

export async function warmUp(turns: readonly (() => Promise<Turn>)[], signal: AbortSignal): Promise<void> {
  for (let n = 0; n < WARM_UP_TURNS; n++) {
    for (const turn of turns) {
      signal.throwIfAborted();
      await turn();
    }
  }
}

/** The values of the turns. */
export function values(turns: readonly Turn[]): number[] {
  return turns.map(({ value }) => value);
}

/** The values extrapolated to a whole core: for peers that wait, or on a busy machine. */
export function perCore(turns: readonly Turn[]): number[] {
  return turns.map(({ value, serverBusy = 1 }) => value / serverBusy);
}

/** CPU time of the server for one unit of work, µs. */
export function cpuMicros(turns: readonly Turn[]): number[] {
  return perCore(turns).map((rate) => 1_000_000 / rate);
}

/** Shows which side was the bottleneck. */
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
