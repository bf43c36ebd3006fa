import { BlockList, isIP, SocketAddress } from "node:net";
import { unmapped } from "./client-network.ts";

type AddressFamily = "ipv4" | "ipv6";

/**
 * The proxies whose `X-Forwarded-For` is believed. Any other peer can write anything into that header, so its own
 * address counts.
 */
export class TrustedProxies {
  readonly #networks = new BlockList();
  readonly #isEmpty: boolean;

  /** Throws on an entry for which `isNetwork` is false. */
  constructor(networks: readonly string[]) {
    this.#isEmpty = networks.length === 0;
    for (const network of networks) {
      const { address, prefix, family } = parseNetwork(network);
      this.#networks.addSubnet(address, prefix, family);
    }
  }

  /** Whether this is the address of a trusted proxy. */
  includes(address: string): boolean {
    return !this.#isEmpty && isIP(address) > 0 && this.#networks.check(address, familyOf(address));
  }

  /**
   * The address of the client for which this proxy calls: the rightmost entry of `X-Forwarded-For` that is not a trusted
   * proxy, since each proxy appends the address of its own peer. Where an entry is not an address, the proxy that
   * forwarded it counts as the client: nothing to the left of it comes from a trusted proxy.
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

/** Whether this is an address, or a network such as `10.0.0.0/8` or `fd00::/8`. */
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
 * The canonical form of an address, so that a client counts once: without the port that some proxies add, IPv6 in its
 * shortest form, IPv4-mapped IPv6 as IPv4. `undefined` for anything that is not an address.
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
