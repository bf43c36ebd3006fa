import { Code } from "@connectrpc/connect";
import { StockService } from "../../../gen/inventory/v1/stock_pb.ts";
import { ruleOf } from "../../access/policy.ts";
import { InventoryError } from "../../inventory/errors.ts";
import type { LoopDelay } from "../../ops/loop-delay.ts";
import type { Call, CallMiddleware } from "../call.ts";
import { ConcurrencyLimiter } from "../concurrency-limiter.ts";
import { RateLimiter } from "../rate-limiter.ts";

export interface CallLimits {
  /** Lateness of the event loop, ms, from which on shoppers are asked to come back later. 0: never. */
  readonly shedDelayMs: number;
  /** Unary calls of shoppers in flight, beyond which the same holds. One address of the outside may have a tenth of them. */
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
/**
 * Open streams, a tenth of them for one address of the outside. Watches: those that a server takes, and some that wait for their
 * request, for a client could open them and send nothing.
 */
const WATCHES_MAX = 11_000;
/** The same for health and for the schema. At some 50 KB each, 50 MB. */
const OTHER_STREAMS_MAX = 1_000;
/** Probes are how others learn that this server is overloaded. */
const NEVER_SHED = "grpc.health.v1.Health";

/**
 * Keeps the server quick for Orders: past a bound shoppers' reads are refused with RESOURCE_EXHAUSTED and the time
 * to come back, and only far beyond it calls of known callers. One address alone gets no more than its part.
 */
export function limitsMiddleware(limits: CallLimits, loopDelay: LoopDelay): CallMiddleware {
  const reads = new RateLimiter(limits.readsPerAddress);
  const refusedTokens = new RateLimiter(REFUSED_TOKENS_PER_ADDRESS);
  const lateForShoppers = new Lateness(limits.shedDelayMs, () => loopDelay.msNow);
  // One long turn is no reason to refuse a purchase.
  const lateForKnown = new Lateness(KNOWN_CALLER_FACTOR * limits.shedDelayMs, () => loopDelay.ms);
  const watches = new ConcurrencyLimiter("watches", WATCHES_MAX);
  const otherStreams = new ConcurrencyLimiter("streams", OTHER_STREAMS_MAX);
  const ofShoppers = new ConcurrencyLimiter("calls", limits.callsInFlightMax);
  const ofKnown = new ConcurrencyLimiter(
    "calls of known callers",
    KNOWN_CALLER_FACTOR * limits.callsInFlightMax,
  );

  function countOf({ method }: Call): ConcurrencyLimiter | undefined {
    if (method.methodKind !== "unary") {
      return method === StockService.method.watchStock ? watches : otherStreams;
    }
    const service = method.parent.typeName;
    if (service === NEVER_SHED) {
      return undefined;
    }
    return ruleOf(service) === "everybody" ? ofShoppers : ofKnown;
  }

  function refuse(service: string, address: string): void {
    if (service === NEVER_SHED) {
      return;
    }
    if (ruleOf(service) === "everybody") {
      if (!reads.take(address)) {
        throw overloaded(`More than ${limits.readsPerAddress} calls a second came from ${address}`);
      }
      lateForShoppers.refuse();
      return;
    }
    if (!refusedTokens.has(address)) {
      throw overloaded(`Too many tokens of ${address} were not accepted`);
    }
    lateForKnown.refuse();
  }

  return {
    enter(call) {
      const { address } = call.caller;
      refuse(call.method.parent.typeName, address);
      countOf(call)?.enter(address);
    },
    run(call, method) {
      // All that comes in one turn of the loop is let in before the first of it runs.
      if (ruleOf(call.method.parent.typeName) === "everybody" && call.method.parent.typeName !== NEVER_SHED) {
        lateForShoppers.refuse();
      }
      return method();
    },
    leave(call, code) {
      const { address } = call.caller;
      countOf(call)?.leave(address);
      // Who leaves before his token was looked at has cost as much. Where no token can be looked at, he is not to blame.
      if (!call.isAdmitted && call.principal === undefined && code !== Code.Unavailable) {
        refusedTokens.take(address);
      }
    },
  };
}

/** Whether one kind of callers is to come back later, because the event loop is late. */
class Lateness {
  readonly #delayMsMax: number;
  readonly #delayMs: () => number;
  #isLate = false;

  /** 0: never. */
  constructor(delayMsMax: number, delayMs: () => number) {
    this.#delayMsMax = delayMsMax;
    this.#delayMs = delayMs;
  }

  refuse(): void {
    if (this.#delayMsMax > 0) {
      const bound = this.#isLate ? RECOVERED * this.#delayMsMax : this.#delayMsMax;
      this.#isLate = this.#delayMs() > bound;
      if (this.#isLate) {
        throw overloaded("The server is busy");
      }
    }
  }
}

function overloaded(reason: string): InventoryError {
  return new InventoryError("OVERLOADED", `${reason}; try again later`);
}
