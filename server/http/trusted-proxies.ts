import { BlockList, isIP, SocketAddress } from "node:net";
import { unmapped } from "./client-network.ts";

type AddressFamily = "ipv4" | "ipv6";

/**
 * The proxies whose word about the client is taken. Whoever else sends `X-Forwarded-For` may have
 * written into it what he likes, so that of a peer that is none of these the peer's own address counts.
 */
export class TrustedProxies {
  readonly #networks = new BlockList();
  readonly #isEmpty: boolean;

  /** Throws on one that `isNetwork` does not know. */
  constructor(networks: readonly string[]) {
    this.#isEmpty = networks.length === 0;
    for (const network of networks) {
      const { address, prefix, family } = parseNetwork(network);
      this.#networks.addSubnet(address, prefix, family);
    }
  }

  /** Whether this is the address of one. */
  includes(address: string): boolean {
    return !this.#isEmpty && isIP(address) > 0 && this.#networks.check(address, familyOf(address));
  }

  /**
   * The address of the client for whom this proxy calls: the rightmost of `X-Forwarded-For` that is no trusted proxy, for
   * each adds to the right whom it was asked by. What stands left of an entry that is no address was added by
   * nobody we trust; there the proxy that passed it on counts as the client.
   */
  clientOf(proxy: string, forwardedFor: string): string {
    let client = addressOf(proxy) ?? proxy;
    for (const hop of forwardedFor.split(",").reverse()) {
      const address = addressOf(hop.trim());
      if (address === undefined) {
        break;
      }
      client = address;
      if (!this.includes(client)) {
        break;
      }
    }
    return client;
  }
}

/** Whether this is an address, or a network as `10.0.0.0/8` and `fd00::/8`. */
export function isNetwork(text: string): boolean {
  const { address, prefix, family } = parseNetwork(text);
  return isIP(address) > 0 && Number.isInteger(prefix) && prefix <= bitsOf(family);
}

function parseNetwork(text: string): { address: string; prefix: number; family: AddressFamily } {
  const slash = text.indexOf("/");
  const address = slash < 0 ? text : text.slice(0, slash);
  const length = slash < 0 ? "" : text.slice(slash + 1);
  const family = familyOf(address);
  const prefix = slash < 0 ? bitsOf(family) : /^\d{1,3}$/.test(length) ? Number(length) : Number.NaN;
  return { address, prefix, family };
}

/**
 * An address in its one canonical form, so that a client counts once: without a port, which some proxies add, IPv6 in its
 * shortest form, and IPv4 as such also where a dual-stack socket gives it as IPv6.
 */
function addressOf(hop: string): string | undefined {
  const bare = /^\[(.*)\](?::\d+)?$/.exec(hop)?.[1] ?? /^([\d.]+):\d+$/.exec(hop)?.[1] ?? hop;
  if (isIP(bare) === 0) {
    return undefined;
  }
  if (familyOf(bare) === "ipv4") {
    return bare;
  }
  return unmapped(new SocketAddress({ address: bare, family: "ipv6" }).address);
}

function familyOf(address: string): AddressFamily {
  return address.includes(":") ? "ipv6" : "ipv4";
}

function bitsOf(family: AddressFamily): number {
  return family === "ipv4" ? 32 : 128;
}
