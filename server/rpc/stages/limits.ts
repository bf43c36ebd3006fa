import { Code } from "@connectrpc/connect";
import { ruleOf } from "../../access/policy.ts";
import { InventoryError } from "../../inventory/errors.ts";
import type { LoopDelay } from "../../ops/loop-delay.ts";
import { AddressBudget } from "../address-budget.ts";
import type { Call, CallStage } from "../call.ts";

export interface CallLimits {
  /** Lateness of the event loop, ms, from which on shoppers are asked to come back later. 0: never. */
  readonly shedDelayMs: number;
  /** Unary calls of shoppers in flight, beyond which the same holds. */
  readonly callsInFlightMax: number;
  /** Calls of shoppers a second from one address of the outside. 0: no bound. */
  readonly readsPerAddress: number;
}

/** What known callers have above shoppers: they are few, and a purchase is worth more than a look. */
const KNOWN_CALLER_FACTOR = 10;
/** Below this part of its bound an overload counts as over, so that it does not flicker. */
const RECOVERED = 0.5;
/** Refused tokens a second from one address of the outside, after which none is looked at. Nobody needs more. */
const REFUSED_TOKENS_PER_ADDRESS = 10;
/** Probes are how others learn that this server is overloaded. */
const NEVER_SHED = "grpc.health.v1.Health";

/**
 * Keeps the server quick for Orders: past a bound shoppers' reads are refused with RESOURCE_EXHAUSTED and the time
 * to come back, and only far beyond it calls of known callers. One address alone gets no more than its part.
 */
export function limitsStage(limits: CallLimits, loopDelay: LoopDelay): CallStage {
  const reads = new AddressBudget(limits.readsPerAddress);
  const refusedTokens = new AddressBudget(REFUSED_TOKENS_PER_ADDRESS);
  const shoppers = new Overload(limits, 1, loopDelay);
  const known = new Overload(limits, KNOWN_CALLER_FACTOR, loopDelay);

  return {
    enter(call) {
      const service = call.method.parent.typeName;
      const { address } = call.caller;
      if (service === NEVER_SHED) {
        return;
      }
      if (ruleOf(service) === "everybody") {
        if (!reads.take(address)) {
          throw overloaded(`More than ${limits.readsPerAddress} calls a second came from ${address}`);
        }
        shoppers.enter(call);
        return;
      }
      if (!refusedTokens.has(address)) {
        throw overloaded(`Too many tokens of ${address} were not accepted`);
      }
      known.enter(call);
    },
    leave(call, code) {
      const service = call.method.parent.typeName;
      if (service === NEVER_SHED) {
        return;
      }
      (ruleOf(service) === "everybody" ? shoppers : known).leave(call);
      if (code === Code.Unauthenticated) {
        refusedTokens.take(call.caller.address);
      }
    },
  };
}

/** Whether one kind of callers is to come back later. */
class Overload {
  readonly #delayMsMax: number;
  readonly #inFlightMax: number;
  readonly #loopDelay: LoopDelay;
  #inFlight = 0;
  #isLate = false;

  constructor(limits: CallLimits, factor: number, loopDelay: LoopDelay) {
    this.#delayMsMax = limits.shedDelayMs * factor;
    this.#inFlightMax = limits.callsInFlightMax * factor;
    this.#loopDelay = loopDelay;
  }

  /** Counts a call, or throws. */
  enter(call: Call): void {
    if (this.#delayMsMax > 0) {
      const bound = this.#isLate ? RECOVERED * this.#delayMsMax : this.#delayMsMax;
      this.#isLate = this.#loopDelay.ms > bound;
      if (this.#isLate) {
        throw overloaded("The server is busy");
      }
    }
    if (call.method.methodKind === "unary") {
      if (this.#inFlight >= this.#inFlightMax) {
        throw overloaded(`${this.#inFlight} calls are in flight, and the most is ${this.#inFlightMax}`);
      }
      this.#inFlight += 1;
    }
  }

  leave(call: Call): void {
    if (call.method.methodKind === "unary") {
      this.#inFlight -= 1;
    }
  }
}

function overloaded(reason: string): InventoryError {
  return new InventoryError("OVERLOADED", `${reason}; try again later`);
}
