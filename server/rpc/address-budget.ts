import { BlockList } from "node:net";

/** Addresses remembered; the one that was asked about longest ago goes first. Some 10 MB. */
const ADDRESSES_MAX = 100_000;
const SECOND_MS = 1_000;
/** An address may save up what it has for this many seconds. */
const BURST_SECONDS = 2;

/** Networks from which no shopper comes: this machine, and private ones (RFC 1918, RFC 4193, RFC 3927). */
const INSIDE = new BlockList();
for (const [network, prefix] of [
  ["127.0.0.0", 8],
  ["10.0.0.0", 8],
  ["172.16.0.0", 12],
  ["192.168.0.0", 16],
  ["169.254.0.0", 16],
] as const) {
  INSIDE.addSubnet(network, prefix, "ipv4");
}
INSIDE.addAddress("::1", "ipv6");
INSIDE.addSubnet("fc00::", 7, "ipv6");
INSIDE.addSubnet("fe80::", 10, "ipv6");

interface Budget {
  left: number;
  countedAt: number;
}

/**
 * How much each address of the outside may have in a second, as a token bucket. Addresses of private networks
 * have no bound: they are edges and services of one's own, and an edge that is not among the trusted proxies
 * would be taken for one very busy shopper.
 */
export class AddressBudget {
  readonly #perSecond: number;
  readonly #budgets = new Map<string, Budget>();

  /** 0: no bound. */
  constructor(perSecond: number) {
    this.#perSecond = perSecond;
  }

  /** Takes one. False, and nothing taken, where there is none left. */
  take(address: string): boolean {
    const budget = this.#budgetOf(address);
    if (budget === undefined) {
      return true;
    }
    if (budget.left < 1) {
      return false;
    }
    budget.left -= 1;
    return true;
  }

  /** Whether there is one left. */
  has(address: string): boolean {
    const budget = this.#budgetOf(address);
    return budget === undefined || budget.left >= 1;
  }

  #budgetOf(address: string): Budget | undefined {
    if (this.#perSecond === 0 || isInside(address)) {
      return undefined;
    }
    const key = networkOf(address);
    const now = performance.now();
    const most = this.#perSecond * BURST_SECONDS;
    const budget = this.#budgets.get(key) ?? { left: most, countedAt: now };
    budget.left = Math.min(most, budget.left + ((now - budget.countedAt) / SECOND_MS) * this.#perSecond);
    budget.countedAt = now;
    this.#budgets.delete(key);
    this.#budgets.set(key, budget);
    if (this.#budgets.size > ADDRESSES_MAX) {
      const [oldest = ""] = this.#budgets.keys();
      this.#budgets.delete(oldest);
    }
    return budget;
  }
}

function isInside(address: string): boolean {
  return INSIDE.check(address, address.includes(":") ? "ipv6" : "ipv4");
}

/** One household or phone has a /64 of IPv6 to itself, and as many addresses as it likes. */
function networkOf(address: string): string {
  if (!address.includes(":")) {
    return address;
  }
  const [head = "", tail] = address.split("::");
  const groups = head === "" ? [] : head.split(":");
  const after = tail === undefined || tail === "" ? 0 : tail.split(":").length;
  const zeros = tail === undefined ? [] : Array.from({ length: 8 - groups.length - after }, () => "0");
  const all = [...groups, ...zeros, ...(tail ? tail.split(":") : [])];
  return all.slice(0, 4).join(":");
}
