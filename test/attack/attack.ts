import { constants, setPriority } from "node:os";
import { compressedBombs, giantMessages } from "./bodies.ts";
import {
  continuationFlood,
  headerBombs,
  invalidFrames,
  pingFlood,
  rapidReset,
  settingsFlood,
} from "./floods.ts";
import { badTokens, idleConnections, slowLoris, streamsLeft, zeroWindowReaders } from "./holders.ts";

/** What an attack is told. */
export interface Target {
  readonly port: number;
  /** How many times the shortest form. */
  readonly times: number;
  /** How long an attack lasts that has no end of its own. */
  readonly lastsMs: number;
  readonly isLong: boolean;
}

const LONG_MS = 5_000;

/** Tells what was done. Rejects where the server gave way. */
export type Attack = (target: Target) => Promise<string>;

const ATTACKS = {
  "slow loris": slowLoris,
  "rapid reset": rapidReset,
  "settings flood": settingsFlood,
  "ping flood": pingFlood,
  "invalid frames": invalidFrames,
  "header bombs": headerBombs,
  "continuation flood": continuationFlood,
  "giant messages": giantMessages,
  "compressed bombs": compressedBombs,
  "idle connections": idleConnections,
  "readers with no window": zeroWindowReaders,
  "streams opened and left": streamsLeft,
  "bad tokens": badTokens,
} satisfies Readonly<Record<string, Attack>>;

export type AttackName = keyof typeof ATTACKS;

/** What to do, for the process that this file is. */
export interface Order {
  readonly name: AttackName;
  readonly target: Target;
}

export type Outcome = { readonly done: string } | { readonly failed: string };

/** In the long form again and again for a while, so that there is something to measure. */
async function attackFor(name: AttackName, target: Target): Promise<string> {
  const endsAt = performance.now() + (target.isLong ? LONG_MS : 0);
  for (let rounds = 1; ; rounds += 1) {
    const done = await ATTACKS[name](target);
    if (performance.now() >= endsAt) {
      return rounds === 1 ? done : `${rounds} rounds of: ${done}`;
    }
  }
}

// A process of its own, so that the client whose calls are measured does not wait for it. It has what the others leave of the
// processors: attackers of the street have machines of their own.
setPriority(constants.priority.PRIORITY_LOW);
process.on("message", ({ name, target }: Order) => {
  attackFor(name, target).then(
    (done) => process.send?.({ done } satisfies Outcome),
    (error: unknown) => process.send?.({ failed: String(error) } satisfies Outcome),
  );
});
