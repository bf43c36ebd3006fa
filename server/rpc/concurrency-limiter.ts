import { externalNetworkOf } from "../http/client-network.ts";
import { InventoryError } from "../inventory/errors.ts";

/** What one client of the outside may have of all. Many shoppers share an address; none of them may have everything. */
const PART_OF_ONE = 0.1;

/** Counts what is open, in all and by address, and refuses what is beyond. */
export class ConcurrencyLimiter {
  readonly #what: string;
  readonly #most: number;
  readonly #mostOfOne: number;
  readonly #byNetwork = new Map<string, number>();
  #all = 0;

  /** `what` is for the refusal: `calls`. */
  constructor(what: string, most: number) {
    this.#what = what;
    this.#most = most;
    this.#mostOfOne = Math.ceil(PART_OF_ONE * most);
  }

  /** Counts one, or throws `OVERLOADED`. */
  enter(address: string): void {
    refuseAt(this.#all, this.#most, `${this.#what} are in flight`);
    const network = externalNetworkOf(address);
    if (network !== undefined) {
      const ofOne = this.#byNetwork.get(network) ?? 0;
      refuseAt(ofOne, this.#mostOfOne, `${this.#what} of ${address} are in flight`);
      this.#byNetwork.set(network, ofOne + 1);
    }
    this.#all += 1;
  }

  leave(address: string): void {
    this.#all -= 1;
    const network = externalNetworkOf(address);
    if (network !== undefined) {
      const ofOne = (this.#byNetwork.get(network) ?? 0) - 1;
      if (ofOne > 0) {
        this.#byNetwork.set(network, ofOne);
      } else {
        this.#byNetwork.delete(network);
      }
    }
  }
}

function refuseAt(open: number, most: number, what: string): void {
  if (open >= most) {
    throw new InventoryError("OVERLOADED", `${open} ${what}, and the most is ${most}; try again later`);
  }
}
