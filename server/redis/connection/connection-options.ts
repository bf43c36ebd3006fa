import { connect as connectTcp } from "node:net";
import { connect as connectTls } from "node:tls";
import { AbstractConnector, type RedisOptions } from "ioredis";
import { CONNECT_MS_MAX, DISCONNECT_MS_MAX, type NodeEndpoint, type RedisEndpoint } from "./endpoint.ts";

/** The part of ioredis's options that says where to connect, besides the URL. */
export function addressOptions({
  password,
  sentinel,
  node,
}: RedisEndpoint): Omit<RedisOptions, "replyMapping"> {
  const credentials = password === undefined ? {} : { password };
  if (node !== undefined) {
    return {
      ...credentials,
      ...(node.username !== undefined && { username: node.username }),
      Connector: connectorTo(node),
    };
  }
  if (sentinel === undefined) {
    return credentials;
  }
  const { addresses, masterName, password: sentinelPassword, tls, nodeUsername } = sentinel;
  return {
    ...credentials,
    ...(nodeUsername !== undefined && { username: nodeUsername }),
    sentinels: addresses.map((address) => ({ ...address })),
    name: masterName,
    role: "master",
    ...(sentinelPassword !== undefined && { sentinelPassword }),
    // A frozen Sentinel must not hold up the others.
    sentinelCommandTimeout: CONNECT_MS_MAX,
    ...(tls && { tls: {}, sentinelTLS: {}, enableTLSForSentinelMode: true }),
  };
}

/** Connects to the node that an endpoint names at the time of the connect. ioredis itself only knows fixed addresses. */
function connectorTo(node: NodeEndpoint) {
  return class NodeConnector extends AbstractConnector {
    constructor() {
      super(DISCONNECT_MS_MAX);
    }

    async connect() {
      this.connecting = true;
      const address = node.address();
      if (address === undefined) {
        throw new Error("No node of the Redis Cluster is known to serve this bucket");
      }
      // As in ioredis's StandaloneConnector, a disconnect before this tick is over must not leave a socket behind.
      await new Promise<void>((resolve) => process.nextTick(resolve));
      if (!this.connecting) {
        throw new Error("Connection is closed.");
      }
      const { host, port } = address;
      this.stream = node.tls ? connectTls({ host, port }) : connectTcp({ host, port });
      this.stream.once("error", (error) => {
        this.firstError = error;
      });
      return this.stream;
    }
  };
}
