import { Coordinator, type Outcome } from "../../server/inventory/sharded/coordinator.ts";
import type { ReservationRecord } from "../../server/memory/reservation-record.ts";
import { type Input, type Snapshot, stepFrom, type Take } from "./buckets.ts";
import {
  type BucketState,
  bucketStateOf,
  checkAnswers,
  checkBuckets,
  checkRest,
  checkStep,
  Violation,
} from "./invariants.ts";
import {
  FAILED,
  Numbers,
  type Position,
  Positions,
  type Program,
  type Script,
  withoutAnswer,
} from "./scripts.ts";
import { VectorSet } from "./vector-set.ts";

/** What a server does for a caller, or a sweep of the deadlines, or what a seller sends. */
export interface Call {
  /** Calls of the same name are the same call, made twice. */
  readonly name: string;
  readonly kind: "reserve" | "commit" | "release" | "extend" | "return" | "expire" | "declare";
  readonly reservationId: string;
  /** Begins once the call of this name was answered without error. */
  readonly after?: string | undefined;
  readonly start: (coordinator: Coordinator) => Script<Outcome | undefined>;
  /** Whether a record may be what this call decided. */
  readonly explains: (record: ReservationRecord) => boolean;
}

/** What happens before the schedule begins: a call with or without what follows its answer, or the deadline. */
export type Given = { readonly call: Call; readonly followsUp: boolean } | "deadline";

export interface Scenario {
  readonly name: string;
  /** The bucket of each product and each reservation. */
  readonly bucketOf: Readonly<Record<string, number>>;
  /** The units of each product. */
  readonly declared: Readonly<Record<string, number>>;
  readonly given?: readonly Given[];
  readonly calls: readonly Call[];
  /** Whether the deadline of what was reserved passes at some time. */
  readonly deadlinePasses?: boolean;
  readonly bounds: Bounds;
}

/** How often each may happen in one schedule. */
export interface Bounds {
  /** A message takes effect twice: its reply was lost and it is sent again, or a copy arrives at any later time. */
  readonly duplicates: number;
  /** A server gives up a message, which arrives at any later time or never. */
  readonly failures: number;
  /** A server begins to repair an undecided or owed reservation. */
  readonly repairs: number;
  /** Attempts of one call, 2 if absent: two calls could supersede each other without end. */
  readonly attempts?: number;
}

/** A mistake put into the protocol, which the explorer has to find. */
export interface Fault {
  readonly name: string;
  readonly take?: Take;
  readonly coordinator?: typeof Coordinator;
}

export interface Exploration {
  readonly states: number;
  readonly transitions: number;
  /** The length of the longest of the shortest schedules to each state. */
  readonly depth: number;
  /** False if the limit of states was reached. */
  readonly isExhausted: boolean;
  readonly violation: { readonly message: string; readonly schedule: readonly string[] } | undefined;
}

/** The clock of the buckets before and after the deadline, ms since 1970. */
const CLOCK_MS = [1_000, 2_000] as const;
/** From the first to the second of these times, and beyond both. */
export const TTL_MS = 500;
export const TTL_LONG_MS = 5_000;

/** Rounds of repairs after which a reservation that remains open is a violation. */
const REPAIR_ROUNDS_MAX = 20;

const DELIVER = 0;
/** It takes effect, its reply is lost, and it is sent again. */
const REPEAT = 1;
/** It takes effect, and a copy of it is still under way. */
const COPY = 2;
const FAIL = 3;
const ARRIVE = 4;
const REPAIR = 5;
const SETTLE = 6;
const PASS_DEADLINE = 7;

/**
 * Explores all schedules of a scenario, breadth first, so that the first violation found has a shortest schedule.
 *
 * A state is the buckets, the positions of all calls and repairs with the results that have arrived, copies of messages that
 * may still arrive, the clock, and what is left of the bounds. A message that waits is a message that is delayed, or one whose
 * server has died, since nothing says that it is ever delivered. So deaths need no transition of their own: in each state,
 * `checkRest` is what is left if every server dies then, no message arrives any more, and another server repairs.
 *
 * Reductions, which leave out no behaviour of buckets or callers:
 * - What a program has met is forgotten once it has ended, except for its answer.
 * - Equal calls, repairs and copies are interchangeable, so their positions are sorted.
 * - A copy of a message that only reads changes nothing. A repetition that changes nothing is the same as none.
 * - A repair of what is owed knows only the ID until it has read the record, so it begins with that read.
 */
export class Explorer {
  readonly #scenario: Scenario;
  readonly #take: Take;
  readonly #coordinator: Coordinator;
  readonly #bucketCount: number;
  readonly #snapshots = new Numbers<Snapshot>();
  readonly #states: (BucketState | undefined)[] = [undefined];
  readonly #positions = new Positions();
  /** By bucket state, input and clock: the bucket state after it, and its result. */
  readonly #steps = new Map<number, { readonly after: number; readonly result: number }>();
  readonly #checked = new Set<string>();
  readonly #calls: readonly Call[];
  /** Calls that were made before the schedule begins. */
  readonly #made: Call[] = [];
  // Where a state's vector has what.
  readonly #callsAt: number;
  readonly #repairsAt: number;
  readonly #copiesAt: number;
  readonly #length: number;

  constructor(scenario: Scenario, fault?: Fault) {
    this.#scenario = scenario;
    this.#take = fault?.take ?? ((bucket, message) => bucket.take(message));
    this.#coordinator = new (fault?.coordinator ?? Coordinator)(this.#bucketOf, {
      attemptsMax: scenario.bounds.attempts ?? 2,
    });
    this.#bucketCount = Math.max(...Object.values(scenario.bucketOf)) + 1;
    this.#calls = [...scenario.calls].sort((a, b) => (a.name < b.name ? -1 : 1));
    const { duplicates, failures, repairs } = scenario.bounds;
    this.#callsAt = this.#bucketCount;
    this.#repairsAt = this.#callsAt + this.#calls.length;
    this.#copiesAt = this.#repairsAt + repairs;
    this.#length = this.#copiesAt + duplicates + failures + 1;
  }

  run(statesMax = Number.POSITIVE_INFINITY): Exploration {
    const set = new VectorSet(this.#length);
    const parents: number[] = [-1];
    const actions: number[] = [-1];
    const depths: number[] = [0];
    let transitions = 0;
    let from = 0;
    let action = -1;
    const state = new Int32Array(this.#length);
    const report = (violation?: Violation): Exploration => ({
      states: set.size,
      transitions,
      depth: depths.at(-1) ?? 0,
      isExhausted: from === set.size,
      violation: violation && {
        message: violation.message,
        schedule: this.#describe(set, parents, actions, from, action),
      },
    });
    const visit = (next: Int32Array): void => {
      transitions += 1;
      if (set.add(next) < 0) {
        parents.push(from);
        actions.push(action);
        depths.push((depths[from] ?? 0) + 1);
        this.#check(next);
      }
    };
    try {
      const first = this.#first();
      set.add(first);
      this.#check(first);
      for (; from < set.size && set.size <= statesMax; from += 1) {
        set.read(from, state);
        this.#expand(
          state,
          (next) => {
            action = next;
          },
          visit,
        );
      }
      return report();
    } catch (error) {
      if (error instanceof Violation) {
        return report(error);
      }
      throw error;
    }
  }

  #first(): Int32Array {
    const { declared, given = [], bounds, bucketOf } = this.#scenario;
    const empty: Snapshot = {
      products: [],
      entries: [],
      owed: [],
      records: [],
      undecided: [],
      operations: [],
    };
    const buckets = new Int32Array(this.#bucketCount).fill(this.#bucket(empty));
    for (const [productId, units] of Object.entries(declared)) {
      const input = {
        step: "declare",
        bucket: bucketOf[productId] ?? 0,
        productId,
        declared: units,
      } as const;
      this.#takeStep(buckets, this.#positions.inputs.of(input), 0);
    }
    let clock = 0;
    for (const each of given) {
      if (each === "deadline") {
        clock = 1;
      } else {
        this.#made.push(each.call);
        this.#runAlone(buckets, this.#program(each.call), clock, each.followsUp);
      }
    }
    const first = new Int32Array(this.#length);
    first.set(buckets);
    for (const [n, call] of this.#calls.entries()) {
      first[this.#callsAt + n] = this.#positions.start(this.#program(call));
    }
    first[this.#length - 1] = packed(clock, bounds);
    return first;
  }

  /** Calls `visit` with each state that follows, after `begin` with the action. */
  #expand(state: Int32Array, begin: (action: number) => void, visit: (next: Int32Array) => void): void {
    const last = this.#length - 1;
    const { clock, duplicates, failures, repairs } = unpacked(state[last] as number);
    const next = new Int32Array(this.#length);
    const spend = (spent: Partial<Bounds>): void => {
      next[last] = packed(clock, {
        duplicates: duplicates - (spent.duplicates ?? 0),
        failures: failures - (spent.failures ?? 0),
        repairs: repairs - (spent.repairs ?? 0),
      });
    };
    const emit = (action: number): void => {
      this.#sort(next);
      begin(action);
      visit(next);
    };
    for (let at = this.#callsAt; at < this.#copiesAt; at += 1) {
      const number = state[at] as number;
      if (number === 0 || (at < this.#repairsAt && !this.#mayBegin(at, state))) {
        continue;
      }
      const position = this.#positions.get(number);
      for (const [index, input] of position.inputs.entries()) {
        if (position.results[index] !== 0) {
          continue;
        }
        const isRead = this.#positions.inputs.get(input).step === "read";
        const isMessage = !["expire", "declare"].includes(this.#positions.inputs.get(input).step);
        const act = (kind: number) => (kind << 16) | (at << 8) | index;
        next.set(state);
        begin(act(DELIVER));
        const result = this.#takeStep(next, input, clock);
        const changed = next.some((value, n) => n < this.#bucketCount && value !== state[n]);
        if (this.#positions.inputs.get(input).step === "expire" && !changed) {
          // Until something is due, a sweep has not begun.
          continue;
        }
        next[at] = this.#positions.receive(number, index, result);
        emit(act(DELIVER));
        if (duplicates > 0 && isMessage && !isRead) {
          next.set(state);
          this.#takeStep(next, input, clock);
          next[at] = this.#positions.receive(number, index, result);
          this.#addCopy(next, input);
          spend({ duplicates: 1 });
          emit(act(COPY));
          if (changed) {
            next.set(state);
            this.#takeStep(next, input, clock);
            spend({ duplicates: 1 });
            emit(act(REPEAT));
          }
        }
        if (failures > 0 && isMessage) {
          next.set(state);
          next[at] = this.#positions.receive(number, index, FAILED);
          if (!isRead) {
            this.#addCopy(next, input);
          }
          spend({ failures: 1 });
          emit(act(FAIL));
        }
      }
    }
    for (let at = this.#copiesAt; at < last; at += 1) {
      const input = state[at] as number;
      if (input !== 0 && input !== state[at - 1]) {
        next.set(state);
        next[at] = 0;
        begin((ARRIVE << 16) | (at << 8));
        this.#takeStep(next, input, clock);
        emit((ARRIVE << 16) | (at << 8));
      }
    }
    for (let bucket = 0; repairs > 0 && bucket < this.#bucketCount; bucket += 1) {
      const { snapshot } = this.#bucketState(state[bucket] as number);
      for (const [index, id] of snapshot.undecided.entries()) {
        next.set(state);
        this.#addRepair(next, this.#positions.start(this.#abandon(state, bucket, id)));
        spend({ repairs: 1 });
        emit((REPAIR << 16) | (bucket << 8) | index);
      }
      for (const [index, id] of snapshot.owed.entries()) {
        next.set(state);
        begin((SETTLE << 16) | (bucket << 8) | index);
        const start = this.#positions.start(this.#settle(id));
        const [read = 0] = this.#positions.get(start).inputs;
        this.#addRepair(next, this.#positions.receive(start, 0, this.#takeStep(next, read, clock)));
        spend({ repairs: 1 });
        emit((SETTLE << 16) | (bucket << 8) | index);
      }
    }
    if (clock === 0 && this.#scenario.deadlinePasses) {
      next.set(state);
      next[last] = packed(1, { duplicates, failures, repairs });
      emit(PASS_DEADLINE << 16);
    }
  }

  #mayBegin(at: number, state: Int32Array): boolean {
    const { after } = this.#calls[at - this.#callsAt] ?? {};
    return (
      after === undefined ||
      this.#calls.some(({ name }, n) => {
        const { answer } = this.#positions.get(state[this.#callsAt + n] as number);
        return name === after && answer !== undefined && "reservation" in answer;
      })
    );
  }

  /** Takes a step in one of the buckets, which are the first numbers of `buckets`. Returns the number of its result. */
  #takeStep(buckets: Int32Array, input: number, clock: number): number {
    const { bucket } = this.#positions.inputs.get(input);
    const before = buckets[bucket] as number;
    const key = (before * 2 ** 24 + input) * 2 + clock;
    let step = this.#steps.get(key);
    if (step === undefined) {
      const message = this.#positions.inputs.get(input);
      const state = this.#bucketState(before);
      const taken = stepFrom(state.snapshot, message, CLOCK_MS[clock] ?? 0, this.#take);
      checkStep(state, message, taken);
      step = { after: this.#bucket(taken.after), result: this.#positions.results.of(taken.result) };
      this.#steps.set(key, step);
    }
    buckets[bucket] = step.after;
    return step.result;
  }

  #check(state: Int32Array): void {
    const buckets = state.slice(0, this.#bucketCount);
    const { clock } = unpacked(state[this.#length - 1] as number);
    this.#checkOnce(`${buckets} ${clock}`, () => {
      checkBuckets(this.#bucketStates(buckets), this.#bucketOf);
      this.#repairAll(buckets, clock);
      checkRest(this.#bucketStates(buckets), this.#bucketOf);
    });
    const positions = this.#calls.map((_, n) => this.#positions.get(state[this.#callsAt + n] as number));
    const homes = this.#calls.map(({ reservationId }) => state[this.#bucketOf(reservationId)]);
    this.#checkOnce(`${homes} of ${positions.map(({ answerId }) => answerId)}`, () => {
      const calls = this.#calls.map((call, n) => ({ call, answer: positions[n]?.answer }));
      const made = this.#made.map((call) => ({ call, answer: undefined }));
      checkAnswers([...made, ...calls], (id) =>
        this.#bucketState(state[this.#bucketOf(id)] as number).entries.get(id),
      );
    });
  }

  #checkOnce(key: string, check: () => void): void {
    if (!this.#checked.has(key)) {
      this.#checked.add(key);
      check();
    }
  }

  /** Runs repairs until nothing is left for them to do. */
  #repairAll(buckets: Int32Array, clock: number): void {
    for (let round = 0; round < REPAIR_ROUNDS_MAX; round += 1) {
      const repairs = [...buckets].flatMap((number, bucket) => {
        const { undecided, owed } = this.#bucketState(number).snapshot;
        return [
          ...undecided.map((id) => this.#abandon(buckets, bucket, id)),
          ...owed.map((id) => this.#settle(id)),
        ];
      });
      const [repair] = repairs;
      if (repair === undefined) {
        return;
      }
      this.#runAlone(buckets, repair, clock, true);
    }
  }

  #runAlone(buckets: Int32Array, program: Program, clock: number, followsUp: boolean): void {
    let position = this.#positions.get(this.#positions.start(program));
    while (
      position.inputs.length > 0 &&
      (followsUp || (position.answer === undefined && !isSwept(position)))
    ) {
      const index = position.results.indexOf(0);
      const result = this.#takeStep(buckets, position.inputs[index] as number, clock);
      position = this.#positions.get(this.#positions.receive(position.id, index, result));
    }
  }

  readonly #bucketOf = (id: string): number => this.#scenario.bucketOf[id] ?? 0;

  #program({ name, start }: Call): Program {
    return { key: name, start: () => start(this.#coordinator) };
  }

  /** The repair of a hold that is undecided. It knows of the attempt what the hold says now. */
  #abandon(buckets: Int32Array, bucket: number, reservationId: string): Program {
    const { epoch = 0, fingerprint = "" } =
      this.#bucketState(buckets[bucket] as number).records.get(reservationId) ?? {};
    return {
      key: `repair of ${reservationId}, epoch ${epoch}, ${fingerprint}, in bucket ${bucket}`,
      start: () => withoutAnswer(this.#coordinator.abandon({ reservationId, epoch, fingerprint }, [bucket])),
    };
  }

  #settle(reservationId: string): Program {
    return {
      key: `settlement of ${reservationId}`,
      start: () => withoutAnswer(this.#coordinator.settleOwed(reservationId)),
    };
  }

  #bucket(snapshot: Snapshot): number {
    return this.#snapshots.of(snapshot);
  }

  #bucketState(number: number): BucketState {
    const known = this.#states[number];
    if (known !== undefined) {
      return known;
    }
    const state = bucketStateOf(this.#snapshots.get(number));
    this.#states[number] = state;
    return state;
  }

  #bucketStates(buckets: Int32Array): BucketState[] {
    return Array.from(buckets, (number) => this.#bucketState(number));
  }

  #addRepair(state: Int32Array, position: number): void {
    state[state.indexOf(0, this.#repairsAt)] = position;
  }

  #addCopy(state: Int32Array, input: number): void {
    state[state.indexOf(0, this.#copiesAt)] = input;
  }

  /** Brings what is interchangeable into one order. */
  #sort(state: Int32Array): void {
    for (let at = this.#repairsAt; at < this.#copiesAt; at += 1) {
      const position = state[at] as number;
      if (position !== 0 && this.#positions.get(position).inputs.length === 0) {
        state[at] = 0;
      }
    }
    state.subarray(this.#repairsAt, this.#copiesAt).sort(descending);
    state.subarray(this.#copiesAt, this.#length - 1).sort(descending);
    for (let n = 0; n < this.#calls.length; ) {
      const name = this.#calls[n]?.name;
      let end = n + 1;
      while (this.#calls[end]?.name === name) {
        end += 1;
      }
      if (end - n > 1) {
        state.subarray(this.#callsAt + n, this.#callsAt + end).sort();
      }
      n = end;
    }
  }

  /** The schedule to the state `from`, and the action that broke the invariant there. */
  #describe(
    set: VectorSet,
    parents: readonly number[],
    actions: readonly number[],
    from: number,
    action: number,
  ): string[] {
    const path: [number, number][] = [[from, action]];
    for (let at = from; at > 0; at = parents[at] ?? 0) {
      path.unshift([parents[at] ?? 0, actions[at] ?? 0]);
    }
    const state = new Int32Array(this.#length);
    return path.map(([before, taken]) => {
      set.read(before, state);
      return taken < 0 ? "at the start" : this.#describeAction(state, taken);
    });
  }

  #describeAction(state: Int32Array, action: number): string {
    const [kind, at, index] = [action >> 16, (action >> 8) & 0xff, action & 0xff];
    if (kind === PASS_DEADLINE) {
      return "the deadline passes";
    }
    if (kind === ARRIVE) {
      return `a copy arrives: ${this.#describeInput(state[at] as number)}`;
    }
    if (kind === REPAIR || kind === SETTLE) {
      const { snapshot } = this.#bucketState(state[at] as number);
      const id = (kind === REPAIR ? snapshot.undecided : snapshot.owed)[index] ?? "";
      return `begins: ${(kind === REPAIR ? this.#abandon(state, at, id) : this.#settle(id)).key}`;
    }
    const position = this.#positions.get(state[at] as number);
    const input = position.inputs[index] as number;
    const how = {
      [DELIVER]: "",
      [REPEAT]: ", its reply is lost",
      [COPY]: ", a copy is under way",
      [FAIL]: " fails",
    }[kind];
    const result = kind === FAIL ? "" : ` -> ${this.#resultOf(state, input)}`;
    return `${position.program.key}: ${this.#describeInput(input)}${how}${result}`;
  }

  #resultOf(state: Int32Array, input: number): string {
    const { clock } = unpacked(state[this.#length - 1] as number);
    try {
      const result = this.#positions.results.get(this.#takeStep(state.slice(), input, clock));
      return "nextEpoch" in result ? `${result.status}, next epoch ${result.nextEpoch}` : result.status;
    } catch {
      return "violation";
    }
  }

  #describeInput(number: number): string {
    const input: Input = this.#positions.inputs.get(number);
    const epoch = "epoch" in input ? `, epoch ${input.epoch}` : "";
    const revisions =
      "effects" in input ? `, revisions [${input.effects.map(({ revision }) => revision)}]` : "";
    const lines =
      "lines" in input ? ` ${input.lines.map(({ productId, quantity }) => `${quantity} ${productId}`)}` : "";
    return `${input.step}${lines} in bucket ${input.bucket}${epoch}${revisions}`;
  }
}

function packed(clock: number, { duplicates, failures, repairs }: Bounds): number {
  return clock | (duplicates << 4) | (failures << 8) | (repairs << 12);
}

function unpacked(value: number): Bounds & { readonly clock: number } {
  return {
    clock: value & 15,
    duplicates: (value >> 4) & 15,
    failures: (value >> 8) & 15,
    repairs: (value >> 12) & 15,
  };
}

/** Whether it is a sweep that has expired something. */
function isSwept({ program, turns }: Position): boolean {
  return program.key === "sweep" && turns.length > 0;
}

function descending(a: number, b: number): number {
  return b - a;
}
