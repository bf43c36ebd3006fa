import { BlockList } from "node:net";

/** Networks that shoppers do not come from: this machine and private ones (RFC 1918, RFC 4193, RFC 3927). */
const INTERNAL = new BlockList();
for (const [network, prefix] of [
  ["127.0.0.0", 8],
  ["10.0.0.0", 8],
  ["172.16.0.0", 12],
  ["192.168.0.0", 16],
  ["169.254.0.0", 16],
] as const) {
  INTERNAL.addSubnet(network, prefix, "ipv4");
}
INTERNAL.addAddress("::1", "ipv6");
INTERNAL.addSubnet("fc00::", 7, "ipv6");
INTERNAL.addSubnet("fe80::", 10, "ipv6");

/**
 * What counts as one external client: an IPv4 address, or an IPv6 /64, which one household or phone has to itself.
 * `undefined` for addresses of private networks. Those belong to proxies and services of the operator; a proxy that is
 * missing from the trusted proxies would otherwise count as a single client.
 */
export function externalNetworkOf(address: string): string | undefined {
  // One call asks several times, and the many calls of a proxy come from one address.
  if (address !== last.address) {
    last = { address, network: networkOf(address) };
  }
  return last.network;
}

let last: { readonly address: string; readonly network: string | undefined } = {
  address: "",
  network: undefined,
};

function networkOf(address: string): string | undefined {
  if (!address.includes(":")) {
    return INTERNAL.check(address, "ipv4") ? undefined : address;
  }
  return INTERNAL.check(address, "ipv6") ? undefined : subnetOf(address);
}

/** The IPv4 address of an IPv4-mapped IPv6 address (`::ffff:192.0.2.1`), as dual-stack sockets report it; any other as it is. */
export function unmapped(address: string): string {
  return address.replace(/^::ffff:(?=\d+\.)/, "");
}

function subnetOf(address: string): string {
  const [head = "", tail] = address.split("::");
  const groups = head === "" ? [] : head.split(":");
  const after = tail === undefined || tail === "" ? 0 : tail.split(":").length;
  const zeros = tail === undefined ? [] : Array.from({ length: 8 - groups.length - after }, () => "0");
  const all = [...groups, ...zeros, ...(tail ? tail.split(":") : [])];
  return all.slice(0, 4).join(":");
}
