import type { HostAndPort } from "./endpoint.ts";

/** A node of a Redis Cluster, as another one describes it. */
export interface ClusterNode {
  readonly id: string;
  /** Where clients reach it: the announced host name, or else the IP address. */
  readonly address: HostAndPort;
  /** The IP address, by which MOVED may name the node although it has a host name. */
  readonly ip: string;
  /** Whether the node describes itself. It knows its own address best. */
  readonly isSelf: boolean;
  readonly isPrimary: boolean;
  /** Whether the node that describes it, or most primaries, cannot reach it. */
  readonly isFailing: boolean;
  /** Increases with each change of ownership. Of two claims to a slot, the one with the greater epoch is newer. */
  readonly epoch: number;
  readonly slots: readonly (readonly [first: number, last: number])[];
}

/**
 * Decodes a reply of CLUSTER NODES (https://redis.io/docs/latest/commands/cluster-nodes/): for each node its ID, address
 * (`ip:port@busport,hostname,…`), flags, primary, ping, pong, epoch, link state and slots. Nodes without an address are left
 * out. `self` is the address of the node that replied, which may not know its own.
 */
export function decodeClusterNodes(text: string, self: HostAndPort): ClusterNode[] {
  return text.split("\n").flatMap((line) => {
    const [id = "", place = "", flagText = "", , , , epoch = "0", , ...slots] = line.split(" ");
    const flags = flagText.split(",");
    const [socket = "", hostname = ""] = place.split(",");
    const [, foundIp = "", port = "0"] = /^(.*):(\d+)@/.exec(socket) ?? [];
    const ip = foundIp === "" && flags.includes("myself") ? self.host : foundIp;
    if (ip === "" || port === "0" || flags.includes("noaddr") || flags.includes("handshake")) {
      return [];
    }
    return [
      {
        id,
        address: { host: hostname === "" ? ip : hostname, port: Number(port) },
        ip,
        isSelf: flags.includes("myself"),
        isPrimary: flags.includes("master"),
        isFailing: flags.includes("fail") || flags.includes("fail?"),
        epoch: Number(epoch),
        slots: slots.flatMap(rangeOf),
      },
    ];
  });
}

/** `5460` or `0-5460`. Others, such as `[93-<-…]`, are about slots that are being moved. */
function rangeOf(text: string): [number, number][] {
  const [, first, last = first] = /^(\d+)(?:-(\d+))?$/.exec(text) ?? [];
  return first === undefined ? [] : [[Number(first), Number(last)]];
}

/** Whether the node serves a slot as its primary. */
export function serves({ isPrimary, slots }: ClusterNode, slot: number): boolean {
  return isPrimary && slots.some(([first, last]) => first <= slot && slot <= last);
}
