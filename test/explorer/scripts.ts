import { InventoryError } from "../../server/inventory/errors.ts";
import type { Reservation } from "../../server/inventory/reservation.ts";
import type { Outcome } from "../../server/inventory/sharded/coordinator.ts";
import type { Input, Result } from "./buckets.ts";

/** What a server runs: inputs that are sent at the same time, then their results. */
export type Script<T> = Generator<readonly Input[], T, readonly Result[]>;

/** What a caller was answered. */
export type Answer =
  | { readonly reservation: Reservation }
  | { readonly code: string; readonly refusal: string };

/** A call, sweep or repair that a server runs. Equal keys run the same script. */
export interface Program {
  readonly key: string;
  readonly start: () => Script<Outcome | undefined>;
}

/** A program with the results that it has so far. */
export interface Position {
  readonly id: number;
  readonly program: Program;
  /** What it waits for. Empty once it has ended. */
  readonly inputs: readonly number[];
  /** Per input, the result that has arrived, or 0. */
  readonly results: readonly number[];
  /** The answer that its caller has, if any. */
  readonly answer: Answer | undefined;
  /** Number of the answer, 0 if there is none. */
  readonly answerId: number;
  readonly turns: readonly (readonly number[])[];
  readonly next: Map<number, number>;
}

/** The result of an input whose fate is unknown to the server that sent it. */
export const FAILED = 1;

/** Numbers values by their JSON. Numbers start at 1; a number below `reserved` stands for no value. */
export class Numbers<T> {
  readonly #byJson = new Map<string, number>();
  readonly values: (T | undefined)[];

  constructor(reserved = 1) {
    this.values = new Array(reserved).fill(undefined);
  }

  of(value: T): number {
    const json = JSON.stringify(value);
    const known = this.#byJson.get(json);
    if (known !== undefined) {
      return known;
    }
    // What is kept is what the JSON says, so that nobody changes it afterwards.
    this.values.push(JSON.parse(json));
    this.#byJson.set(json, this.values.length - 1);
    return this.values.length - 1;
  }

  get(number: number): T {
    const value = this.values[number];
    if (value === undefined) {
      throw new RangeError(`There is no value ${number}`);
    }
    return value;
  }
}

/**
 * The positions of all programs. A generator cannot be copied, so that a position is the list of the results that its program
 * got. It is replayed from its start once for each new list, and remembered.
 */
export class Positions {
  readonly inputs = new Numbers<Input>();
  readonly results = new Numbers<Result>(FAILED + 1);
  readonly #answers = new Numbers<Answer>();
  readonly #positions: (Position | undefined)[] = [undefined];
  readonly #byKey = new Map<string, number>();

  get(id: number): Position {
    const position = this.#positions[id];
    if (position === undefined) {
      throw new RangeError(`There is no position ${id}`);
    }
    return position;
  }

  start(program: Program): number {
    return this.#byKey.get(program.key) ?? this.#replay(program, []);
  }

  /** The position after the result of an input has arrived. */
  receive(id: number, index: number, result: number): number {
    const position = this.get(id);
    const edge = result * 16 + index;
    const known = position.next.get(edge);
    if (known !== undefined) {
      return known;
    }
    const results = position.results.map((each, n) => (n === index ? result : each));
    const next = results.includes(0)
      ? this.#waiting({ ...position, results })
      : this.#replay(position.program, [...position.turns, results]);
    position.next.set(edge, next);
    return next;
  }

  #waiting(position: Omit<Position, "id" | "next">): number {
    const { program, turns, results } = position;
    return this.#number(`${program.key} ${JSON.stringify([turns, results])}`, position);
  }

  #replay(program: Program, turns: readonly (readonly number[])[]): number {
    let answer: Answer | undefined;
    const answered = (outcome: Outcome): void => {
      answer = "error" in outcome ? answerOf(outcome.error) : outcome;
    };
    const script = withFollowUp(program.start(), answered);
    let inputs: readonly Input[] = [];
    try {
      let next = script.next();
      for (const turn of turns) {
        next = turn.includes(FAILED)
          ? script.throw(new InventoryError("STORE_UNAVAILABLE", "The connection broke"))
          : script.next(turn.map((result) => this.results.get(result)));
      }
      inputs = next.done ? [] : next.value;
    } catch (error) {
      answer ??= answerOf(error);
    }
    if (answer && "reservation" in answer) {
      answer = { reservation: answer.reservation };
    }
    const numbers = inputs.map((input) => this.inputs.of(input));
    const answerId = answer ? this.#answers.of(answer) : 0;
    const position = { program, inputs: numbers, results: numbers.map(() => 0), answer, answerId };
    // What an ended program has met does not matter any more.
    return numbers.length === 0
      ? this.#number(`${program.key} ended ${answerId}`, { ...position, turns: [] })
      : turns.length === 0
        ? this.#number(program.key, { ...position, turns })
        : this.#waiting({ ...position, turns });
  }

  #number(key: string, position: Omit<Position, "id" | "next">): number {
    const known = this.#byKey.get(key);
    if (known !== undefined) {
      return known;
    }
    const id = this.#positions.length;
    this.#positions.push({ ...position, id, next: new Map() });
    this.#byKey.set(key, id);
    return id;
  }
}

export function* withoutAnswer(script: Script<void>): Script<undefined> {
  yield* script;
  return undefined;
}

function* withFollowUp(
  script: Script<Outcome | undefined>,
  answered: (outcome: Outcome) => void,
): Script<void> {
  const outcome = yield* script;
  if (outcome !== undefined) {
    answered(outcome);
    if (outcome.followUp !== undefined) {
      yield* outcome.followUp as Script<void>;
    }
  }
}

function answerOf(error: unknown): Answer {
  if (error instanceof InventoryError) {
    return { code: error.code, refusal: error.refusal };
  }
  throw error;
}
