import { BlockList } from "node:net";

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

/**
 * What counts as one client of the outside: an address, or the /64 that one household or phone has to itself in
 * IPv6, with as many addresses as it likes. `undefined` for addresses of private networks: they are edges and services of
 * one's own, and an edge that is not among the trusted proxies would be taken for one very busy shopper.
 */
export function outsideNetworkOf(address: string): string | undefined {
  // One call asks several times, and an edge's many calls come from one address.
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
    return INSIDE.check(address, "ipv4") ? undefined : address;
  }
  return INSIDE.check(address, "ipv6") ? undefined : subnetOf(address);
}

/** An address in its one form: IPv4 as such also where a dual-stack socket gives it as IPv6. */
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
