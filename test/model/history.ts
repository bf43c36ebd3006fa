import type { Call, Result } from "./calls.ts";
import {
  describe,
  type Happening,
  nothing,
  progressOf,
  progressTold,
  type State,
  step,
} from "./specification.ts";

// A linearizability checker: it searches for an order of the calls, each at one moment between its
// start and its end, in which the specification gives the recorded results. On linearizability see
// Herlihy and Wing, "Linearizability: a correctness condition for concurrent objects", TOPLAS 1990.
// The search is that of Wing and Gong, "Testing and verifying concurrent objects", JPDC 1993, with
// the memoization of Lowe, "Testing for linearizability", CCPE 2017, as in porcupine
// (https://github.com/anishathalye/porcupine). Versions and reservation states are monotonic, so the
// search also backtracks when a remaining result shows an earlier one.

/** One call of one client. Times are of one monotonic clock, in ms. */
export interface Recorded {
  readonly client: number;
  readonly call: Call;
  readonly startMs: number;
  /** Absent if the response was lost: the call may have taken effect at any time after its start, or never. */
  readonly end: { readonly atMs: number; readonly result: Result } | undefined;
}

export interface Rules {
  /**
   * Whether the store may have resent a call whose reply was lost. The call may then have taken effect
   * before the moment at which its result was determined.
   */
  readonly mayRepeat: boolean;
  /** The maximum number of search steps. Default: one million. */
  readonly stepsMax?: number;
}

export interface Verdict {
  readonly kind: "explained" | "impossible" | "undecided";
  /** The number of search steps. */
  readonly steps: number;
  /** A description of where the longest order found ends. Empty if explained. */
  readonly story: string;
}

/** Deadlines within this time may pass while the history is recorded. */
const NEAR_TTL_MS = 10_000;
/** Tolerance: the store's clock has a resolution of 1 ms and differs from the recorder's. */
const CLOCK_SLACK_MS = 2;
const STEPS_MAX = 1_000_000;

/** Checks a history that started with an empty store. */
export function judge(history: readonly Recorded[], rules: Rules): Verdict {
  let steps = 0;
  for (const part of partsOf(history)) {
    const verdict = new Search(part, rules).run();
    steps += verdict.steps;
    if (verdict.kind !== "explained") {
      return { ...verdict, steps };
    }
  }
  return { kind: "explained", steps, story: "" };
}

/**
 * Splits a history into parts that share no product, reservation or operation. The parts are checked
 * separately (Herlihy and Wing, theorem 1: linearizability is local). The products of a reservation
 * belong to one part.
 */
export function partsOf(history: readonly Recorded[]): Recorded[][] {
  const parents = new Map<string, string>();
  const root = (name: string): string => {
    const parent = parents.get(name) ?? name;
    if (parent === name) {
      return name;
    }
    const top = root(parent);
    parents.set(name, top);
    return top;
  };
  for (const { call } of history) {
    const [first = "", ...others] = objectsOf(call);
    for (const other of others) {
      parents.set(root(other), root(first));
    }
  }
  return [...Map.groupBy(history, ({ call }) => root(objectsOf(call)[0] ?? "")).values()];
}

function objectsOf(call: Call): string[] {
  return [
    ...("productId" in call ? [`product ${call.productId}`] : []),
    ...("reservationId" in call ? [`reservation ${call.reservationId}`] : []),
    ...("returnId" in call ? [`return ${call.returnId}`] : []),
    ...("countId" in call ? [`count ${call.countId}`] : []),
    ...("adjustmentId" in call ? [`adjustment ${call.adjustmentId}`] : []),
    ...("lines" in call ? (call.lines ?? []).map((line) => `product ${line.productId}`) : []),
  ];
}

/** An operation that the search puts in order. */
interface Operation {
  readonly what: Call | Happening;
  readonly startMs: number;
  readonly endMs: number;
  /** Absent if the response was lost, so that any result is possible. */
  readonly result: Result | undefined;
  /**
   * 0 for a lost idempotent call: the state itself shows whether it took effect. Orders that differ
   * only in which of two equal calls took effect are thus treated as one.
   */
  readonly bit: bigint;
  /** Absent if the result does not show it. */
  readonly progress: number | undefined;
  readonly client: number;
}

interface Node {
  readonly state: State;
  /** The operations already in order, one bit each. */
  readonly done: bigint;
  readonly placed: number;
}

interface Frame {
  readonly moves: readonly Node[];
  next: number;
}

class Search {
  readonly #operations: readonly Operation[];
  readonly #needed: bigint;
  readonly #rules: Rules;
  /** Numbers for the parts of states, which keep the memoized keys short. */
  readonly #parts = new Map<string, number>();
  readonly #seen = new Set<string>();
  #best: Node = { state: nothing, done: 0n, placed: 0 };

  constructor(part: readonly Recorded[], rules: Rules) {
    this.#rules = rules;
    const calls = part.map(({ client, call, startMs, end }) => ({
      what: call,
      startMs,
      endMs: end?.atMs ?? Number.POSITIVE_INFINITY,
      result: end?.result,
      progress: end && progressTold(call, end.result),
      client,
    }));
    this.#operations = [...calls, ...happenings(part)]
      .sort((a, b) => a.startMs - b.startMs)
      .map((operation, index) => {
        const isBitless = operation.result === undefined && operation.what.kind !== "safety";
        return { ...operation, bit: isBitless ? 0n : 1n << BigInt(index) };
      });
    this.#needed = this.#operations
      .filter(({ result }) => result !== undefined)
      .reduce((bits, { bit }) => bits | bit, 0n);
  }

  /** Depth-first search: places one operation after the other, and backtracks if none can be next. */
  run(): Verdict {
    const { stepsMax = STEPS_MAX } = this.#rules;
    const stack: Frame[] = [{ moves: [this.#best], next: 0 }];
    let steps = 0;
    for (let frame = stack.at(-1); frame !== undefined; frame = stack.at(-1)) {
      const node = frame.moves[frame.next++];
      if (node === undefined) {
        stack.pop();
        continue;
      }
      if ((node.done & this.#needed) === this.#needed) {
        return { kind: "explained", steps, story: "" };
      }
      if (this.#wasHere(node)) {
        continue;
      }
      if (++steps > stepsMax) {
        return { kind: "undecided", steps, story: this.#story() };
      }
      if (node.placed > this.#best.placed) {
        this.#best = node;
      }
      stack.push({ moves: this.#movesFrom(node), next: 0 });
    }
    return { kind: "impossible", steps, story: this.#story() };
  }

  #wasHere({ state, done }: Node): boolean {
    const parts = describe(state).map((part) => {
      const number = this.#parts.get(part) ?? this.#parts.size;
      this.#parts.set(part, number);
      return number;
    });
    const key = `${parts.join()} ${done.toString(36)}`;
    const known = this.#seen.has(key);
    this.#seen.add(key);
    return known;
  }

  /** The operations that may be next: they started before any unplaced operation ended. */
  #candidates(done: bigint): Operation[] {
    const found: Operation[] = [];
    let endMs = Number.POSITIVE_INFINITY;
    for (const operation of this.#operations) {
      if (operation.startMs > endMs) {
        break;
      }
      if ((done & operation.bit) === 0n) {
        found.push(operation);
        endMs = Math.min(endMs, operation.endMs);
      }
    }
    return found;
  }

  #movesFrom({ state, done, placed }: Node): Node[] {
    const completed: Node[] = [];
    const silent: Node[] = [];
    const repeated: Node[] = [];
    const candidates = this.#candidates(done);
    if (candidates.some((operation) => isTooLate(operation, state))) {
      return [];
    }
    for (const { what, result, bit } of candidates) {
      const next = step(state, what);
      const changes = next.state !== state;
      if (result === undefined) {
        // A lost call without an effect need not be placed.
        if (changes) {
          silent.push({ state: next.state, done: done | bit, placed });
        }
        continue;
      }
      if (next.result === result) {
        const move = { state: next.state, done: done | bit, placed: placed + 1 };
        if (!changes) {
          // It fits here and changes nothing, so no other position needs to be tried.
          return [move];
        }
        completed.push(move);
      }
      // Setting safety stock has no operation ID that identifies a repetition, so it must not be resent.
      if (changes && this.#rules.mayRepeat && what.kind !== "safety") {
        repeated.push({ state: next.state, done, placed });
      }
    }
    return [...completed, ...silent, ...repeated];
  }

  #story(): string {
    const { state, done, placed } = this.#best;
    const next = this.#candidates(done).map(({ what, result, client }) => {
      const specified = step(state, what).result;
      const met = result === undefined ? "its result was lost" : `had the result ${result}`;
      return `  client ${client}: ${JSON.stringify(what)}\n    ${met}\n    specified here: ${specified}`;
    });
    const all = this.#operations.filter(({ result }) => result !== undefined).length;
    return `${placed} of ${all} results can be explained; the next operation would have to be one of:\n${next.join("\n")}\n${describe(state).join("\n")}`;
  }
}

/** Whether the state is already past the one that the result shows, so that no order can explain it. */
function isTooLate({ what, progress }: Operation, state: State): boolean {
  return progress !== undefined && progressOf(state, what) > progress;
}

/** Deadlines and sweeps as operations that may occur at any time from then on. */
function happenings(part: readonly Recorded[]): Omit<Operation, "bit">[] {
  const earliest = new Map<string, number>();
  for (const { call, startMs } of part) {
    if ((call.kind === "reserve" || call.kind === "extend") && call.ttlMs < NEAR_TTL_MS) {
      const atMs = startMs + call.ttlMs - CLOCK_SLACK_MS;
      earliest.set(call.reservationId, Math.min(earliest.get(call.reservationId) ?? atMs, atMs));
    }
  }
  const never = { endMs: Number.POSITIVE_INFINITY, result: undefined, progress: undefined, client: -1 };
  return [...earliest].flatMap(([reservationId, startMs]) =>
    (["lapse", "sweep"] as const).map((kind) => ({ ...never, what: { kind, reservationId }, startMs })),
  );
}
