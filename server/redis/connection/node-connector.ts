import { connect as connectTcp } from "node:net";
import { connect as connectTls } from "node:tls";
import { AbstractConnector } from "ioredis";
import { DISCONNECT_MS_MAX, type NodeEndpoint } from "./endpoint.ts";

/** Connects to the node that an endpoint names at the time of the connect. ioredis itself only knows fixed addresses. */
export function connectorTo(node: NodeEndpoint) {
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
