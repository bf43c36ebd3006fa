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

/** Parameters of an attack. */
export interface Target {
  readonly port: number;
  /** Multiple of the shortest form. */
  readonly times: number;
  /** Duration of an attack without an end of its own. */
  readonly durationMs: number;
  readonly isLong: boolean;
}

const LONG_MS = 5_000;

/** Resolves with a description of what was done. Rejects if the server failed. */
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

/** A message to the attacker process. */
export interface Order {
  readonly name: AttackName;
  readonly target: Target;
}

export type Outcome = { readonly done: string } | { readonly failed: string };

/** Runs the attack once; in the long form repeatedly for a while, to measure it. */
async function attackFor(name: AttackName, target: Target): Promise<string> {
  const endsAt = performance.now() + (target.isLong ? LONG_MS : 0);
  for (let rounds = 1; ; rounds += 1) {
    const done = await ATTACKS[name](target);
    if (performance.now() >= endsAt) {
      return rounds === 1 ? done : `${rounds} rounds of: ${done}`;
    }
  }
}

// A separate process, so that the measured client does not wait for it. It has low priority, because real attackers have
// their own machines.
setPriority(constants.priority.PRIORITY_LOW);
process.on("message", ({ name, target }: Order) => {
  attackFor(name, target).then(
    (done) => process.send?.({ done } satisfies Outcome),
    (error: unknown) => process.send?.({ failed: String(error) } satisfies Outcome),
  );
});
