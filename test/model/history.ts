import type { Answer, Call } from "./calls.ts";
import {
  describe,
  type Happening,
  nothing,
  progressOf,
  progressTold,
  type State,
  step,
} from "./specification.ts";

// A checker of histories: is there an order of the calls, each at one moment between its start and
// its end, in which the specification gives all the answers that were given? That is
// linearizability (Herlihy and Wing, "Linearizability: a correctness condition for concurrent
// objects", TOPLAS 1990). The search is that of Wing and Gong, "Testing and verifying concurrent
// objects", JPDC 1993, with the memory of Lowe, "Testing for linearizability", CCPE 2017, as in
// porcupine (https://github.com/anishathalye/porcupine). Because versions and states of
// reservations go one way only, it also turns back as soon as an answer tells of one left behind.

/** One call of one client. Times are those of one monotonic clock, in ms. */
export interface Recorded {
  readonly client: number;
  readonly call: Call;
  readonly startMs: number;
  /** Absent where the answer was lost: then the call may have happened at any time after its start, or never. */
  readonly end: { readonly atMs: number; readonly answer: Answer } | undefined;
}

export interface Rules {
  /**
   * Whether the store may have sent a call a second time by itself, when its answer was lost on the
   * way. Then the call may already have had its effect at a moment before the one that the answer tells of.
   */
  readonly mayRepeat: boolean;
  /** Steps of the search after which it gives up; a million unless given. */
  readonly stepsMax?: number;
}

export interface Verdict {
  readonly kind: "explained" | "impossible" | "undecided";
  /** How many steps the search took. */
  readonly steps: number;
  /** Where the best order ends that was found, for a reader. Empty if explained. */
  readonly story: string;
}

/** Deadlines nearer than this are expected to pass while a history is made. */
const NEAR_TTL_MS = 10_000;
/** The store's clock counts whole milliseconds, and another clock than the recorder's. */
const CLOCK_SLACK_MS = 2;
const STEPS_MAX = 1_000_000;

/** Judges a history that began with nothing in the store. */
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
 * Splits a history into parts that share neither product nor reservation nor operation. Objects are
 * judged one by one where each call is on one of them (Herlihy and Wing, theorem 1: linearizability
 * is local); a reservation makes one object of all its products.
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

/** What the search puts in order. */
interface Operation {
  readonly what: Call | Happening;
  readonly startMs: number;
  readonly endMs: number;
  /** Absent where any answer will do, because none came. */
  readonly answer: Answer | undefined;
  /**
   * 0 where no answer came and a second time does nothing: the state itself tells whether it
   * happened. So orders that differ only in which of two equal calls had the effect are one.
   */
  readonly bit: bigint;
  /** Absent where the answer does not tell it. */
  readonly progress: number | undefined;
  readonly client: number;
}

interface Node {
  readonly state: State;
  /** Those already in order, one bit each. */
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
  /** Numbers for the parts of states, to keep what is remembered short. */
  readonly #parts = new Map<string, number>();
  readonly #seen = new Set<string>();
  #best: Node = { state: nothing, done: 0n, placed: 0 };

  constructor(part: readonly Recorded[], rules: Rules) {
    this.#rules = rules;
    const calls = part.map(({ client, call, startMs, end }) => ({
      what: call,
      startMs,
      endMs: end?.atMs ?? Number.POSITIVE_INFINITY,
      answer: end?.answer,
      progress: end && progressTold(call, end.answer),
      client,
    }));
    this.#operations = [...calls, ...happenings(part)]
      .sort((a, b) => a.startMs - b.startMs)
      .map((operation, index) => {
        const isBitless = operation.answer === undefined && operation.what.kind !== "safety";
        return { ...operation, bit: isBitless ? 0n : 1n << BigInt(index) };
      });
    this.#needed = this.#operations
      .filter(({ answer }) => answer !== undefined)
      .reduce((bits, { bit }) => bits | bit, 0n);
  }

  /** Depth first: places one operation after the other, and goes back where nothing can come next. */
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

  /** Those that may come next: they started before any that is still to be placed had ended. */
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
    const answered: Node[] = [];
    const silent: Node[] = [];
    const repeated: Node[] = [];
    const candidates = this.#candidates(done);
    if (candidates.some((operation) => isTooLate(operation, state))) {
      return [];
    }
    for (const { what, answer, bit } of candidates) {
      const next = step(state, what);
      const changes = next.state !== state;
      if (answer === undefined) {
        // One that changes nothing need not have happened.
        if (changes) {
          silent.push({ state: next.state, done: done | bit, placed });
        }
        continue;
      }
      if (next.answer === answer) {
        const move = { state: next.state, done: done | bit, placed: placed + 1 };
        if (!changes) {
          // It fits here and disturbs nobody, so it need not be tried anywhere else.
          return [move];
        }
        answered.push(move);
      }
      // Safety stock has no ID to tell a repetition by, so it must not be sent again.
      if (changes && this.#rules.mayRepeat && what.kind !== "safety") {
        repeated.push({ state: next.state, done, placed });
      }
    }
    return [...answered, ...silent, ...repeated];
  }

  #story(): string {
    const { state, done, placed } = this.#best;
    const next = this.#candidates(done).map(({ what, answer, client }) => {
      const specified = step(state, what).answer;
      const met = answer === undefined ? "its answer was lost" : `was answered ${answer}`;
      return `  client ${client}: ${JSON.stringify(what)}\n    ${met}\n    specified here: ${specified}`;
    });
    const all = this.#operations.filter(({ answer }) => answer !== undefined).length;
    return `${placed} of ${all} answers can be explained; then one of these would have to come:\n${next.join("\n")}\n${describe(state).join("\n")}`;
  }
}

/** Whether the state has left behind what the answer tells of, so that no way leads there any more. */
function isTooLate({ what, progress }: Operation, state: State): boolean {
  return progress !== undefined && progressOf(state, what) > progress;
}

/** Deadlines that may have passed, and sweeps, each as something that may happen any time after. */
function happenings(part: readonly Recorded[]): Omit<Operation, "bit">[] {
  const earliest = new Map<string, number>();
  for (const { call, startMs } of part) {
    if ((call.kind === "reserve" || call.kind === "extend") && call.ttlMs < NEAR_TTL_MS) {
      const atMs = startMs + call.ttlMs - CLOCK_SLACK_MS;
      earliest.set(call.reservationId, Math.min(earliest.get(call.reservationId) ?? atMs, atMs));
    }
  }
  const never = { endMs: Number.POSITIVE_INFINITY, answer: undefined, progress: undefined, client: -1 };
  return [...earliest].flatMap(([reservationId, startMs]) =>
    (["lapse", "sweep"] as const).map((kind) => ({ ...never, what: { kind, reservationId }, startMs })),
  );
}
