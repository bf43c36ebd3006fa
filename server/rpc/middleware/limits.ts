import { Code } from "@connectrpc/connect";
import { StockService } from "../../../gen/inventory/v1/stock_pb.ts";
import { ruleOf } from "../../access/policy.ts";
import { InventoryError } from "../../inventory/errors.ts";
import type { LoopDelay } from "../../ops/loop-delay.ts";
import type { Call, CallMiddleware } from "../call.ts";
import { ConcurrencyLimiter } from "../concurrency-limiter.ts";
import { RateLimiter } from "../rate-limiter.ts";

export interface CallLimits {
  /** Delay of the event loop, in ms, above which public reads are refused. 0: never. */
  readonly shedDelayMs: number;
  /** Public unary calls in flight. One public network may have a tenth of them. */
  readonly callsInFlightMax: number;
  /** Public calls a second from one public network. 0: unlimited. */
  readonly readsPerAddress: number;
}

/** Limits of calls that require a role, relative to those of public calls: their callers are few and trusted. */
const ROLE_LIMIT_FACTOR = 10;
/** Overload ends below this share of its limit. The gap prevents oscillation. */
const RECOVERY_SHARE = 0.5;
/** Failed authentications a second from one public network; above it, calls that require a role are refused. */
const REFUSED_TOKENS_PER_ADDRESS = 10;
/**
 * Open WatchStock streams; one public network may have a tenth of them. Above the hub's own limit, since streams whose
 * request is not read yet count here: a client could open them and send nothing.
 */
const WATCHES_MAX = 11_000;
/** Open streams of health and reflection. At about 50 KB each, 50 MB. */
const OTHER_STREAMS_MAX = 1_000;
/** Health.Check is not limited, so that probes succeed under load. */
const NEVER_SHED = "grpc.health.v1.Health";

/**
 * Load shedding, with RESOURCE_EXHAUSTED and a retry delay. Public calls are refused first, calls that require a role
 * only at ten times the limit, so that Orders stays fast under a burst of shoppers. One public network never gets more
 * than its share.
 */
export function limitsMiddleware(limits: CallLimits, loopDelay: LoopDelay): CallMiddleware {
  const reads = new RateLimiter(limits.readsPerAddress);
  const refusedTokens = new RateLimiter(REFUSED_TOKENS_PER_ADDRESS);
  const publicOverload = new Overload(limits.shedDelayMs, () => loopDelay.msNow);
  // The mean, not the current delay: one long turn of the event loop must not refuse a purchase.
  const roleOverload = new Overload(ROLE_LIMIT_FACTOR * limits.shedDelayMs, () => loopDelay.ms);
  const watches = new ConcurrencyLimiter("watches", WATCHES_MAX);
  const otherStreams = new ConcurrencyLimiter("streams", OTHER_STREAMS_MAX);
  const publicCalls = new ConcurrencyLimiter("calls", limits.callsInFlightMax);
  const roleCalls = new ConcurrencyLimiter(
    "calls that require a role",
    ROLE_LIMIT_FACTOR * limits.callsInFlightMax,
  );

  function limiterOf({ method }: Call): ConcurrencyLimiter | undefined {
    if (method.methodKind !== "unary") {
      return method === StockService.method.watchStock ? watches : otherStreams;
    }
    const service = method.parent.typeName;
    if (service === NEVER_SHED) {
      return undefined;
    }
    return ruleOf(service) === "public" ? publicCalls : roleCalls;
  }

  function shed(service: string, address: string): void {
    if (service === NEVER_SHED) {
      return;
    }
    if (ruleOf(service) === "public") {
      if (!reads.take(address)) {
        throw overloaded(`More than ${limits.readsPerAddress} calls a second came from ${address}`);
      }
      publicOverload.throwIfOverloaded();
      return;
    }
    if (!refusedTokens.has(address)) {
      throw overloaded(`Too many tokens from ${address} were refused`);
    }
    roleOverload.throwIfOverloaded();
  }

  return {
    enter(call) {
      const { address } = call.caller;
      shed(call.method.parent.typeName, address);
      limiterOf(call)?.enter(address);
    },
    run(call, method) {
      // Checked again: all calls that arrive in one turn of the event loop are admitted before the first one runs.
      if (ruleOf(call.method.parent.typeName) === "public" && call.method.parent.typeName !== NEVER_SHED) {
        publicOverload.throwIfOverloaded();
      }
      return method();
    },
    leave(call, code) {
      const { address } = call.caller;
      limiterOf(call)?.leave(address);
      // Clients that disconnect before their token is verified count too. UNAVAILABLE does not: the keys were missing.
      if (!call.isAdmitted && call.principal === undefined && code !== Code.Unavailable) {
        refusedTokens.take(address);
      }
    },
  };
}

/** Refuses one class of calls while the event loop is delayed. */
class Overload {
  readonly #delayMsMax: number;
  readonly #delayMs: () => number;
  #isOverloaded = false;

  /** 0: never. */
  constructor(delayMsMax: number, delayMs: () => number) {
    this.#delayMsMax = delayMsMax;
    this.#delayMs = delayMs;
  }

  throwIfOverloaded(): void {
    if (this.#delayMsMax > 0) {
      const limit = this.#isOverloaded ? RECOVERY_SHARE * this.#delayMsMax : this.#delayMsMax;
      this.#isOverloaded = this.#delayMs() > limit;
      if (this.#isOverloaded) {
        throw overloaded("The server is busy");
      }
    }
  }
}

function overloaded(reason: string): InventoryError {
  return new InventoryError("OVERLOADED", `${reason}; try again later`);
}
