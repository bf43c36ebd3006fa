import { externalNetworkOf } from "../http/client-network.ts";
import { InventoryError } from "../inventory/errors.ts";

/** Share of the limit that one public network may have. Many shoppers can share an address, but none may take all. */
const SHARE_PER_NETWORK = 0.1;

/** Limits what is in flight, in total and per public network. Private addresses count towards the total only. */
export class ConcurrencyLimiter {
  readonly #what: string;
  readonly #max: number;
  readonly #maxPerNetwork: number;
  readonly #byNetwork = new Map<string, number>();
  #total = 0;

  /** `what` is a plural noun for the error message, as `calls`. */
  constructor(what: string, max: number) {
    this.#what = what;
    this.#max = max;
    this.#maxPerNetwork = Math.ceil(SHARE_PER_NETWORK * max);
  }

  /** Counts one, or throws `OVERLOADED`. Each success must be matched by one `leave`. */
  enter(address: string): void {
    requireBelow(this.#total, this.#max, `${this.#what} are in flight`);
    const network = externalNetworkOf(address);
    if (network !== undefined) {
      const ofNetwork = this.#byNetwork.get(network) ?? 0;
      requireBelow(ofNetwork, this.#maxPerNetwork, `${this.#what} of ${address} are in flight`);
      this.#byNetwork.set(network, ofNetwork + 1);
    }
    this.#total += 1;
  }

  leave(address: string): void {
    this.#total -= 1;
    const network = externalNetworkOf(address);
    if (network !== undefined) {
      const ofNetwork = (this.#byNetwork.get(network) ?? 0) - 1;
      if (ofNetwork > 0) {
        this.#byNetwork.set(network, ofNetwork);
      } else {
        this.#byNetwork.delete(network);
      }
    }
  }
}

function requireBelow(count: number, max: number, what: string): void {
  if (count >= max) {
    throw new InventoryError("OVERLOADED", `${count} ${what}, and the limit is ${max}; try again later`);
  }
}
