import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { Kafka, logLevel } from "kafkajs";
import { BrokerError } from "../../server/kafka/kafkajs/errors.ts";
import { crc32c, createCluster } from "../../server/kafka/kafkajs/internals.ts";

const client = () => new Kafka({ brokers: ["127.0.0.1:1"], logLevel: logLevel.NOTHING });

describe("the parts of kafkajs that are not in its API", () => {
  it("create a cluster, and brokers from its connections, that connect with the client's settings", async () => {
    const { connectionPoolBuilder, brokerPool, rootLogger } = createCluster(client());
    const address = { host: "127.0.0.2", port: 2, rack: null };
    const configured = await connectionPoolBuilder.build();
    assert.deepEqual([configured.host, configured.port], ["127.0.0.1", 1]);
    const connectionPool = await connectionPoolBuilder.build(address);
    assert.deepEqual([connectionPool.host, connectionPool.port], ["127.0.0.2", 2]);
    assert.equal(typeof connectionPool.send, "function");
    const broker = brokerPool.createBroker({ logger: rootLogger, connectionPool });
    assert.equal(broker.connectionPool, connectionPool);
    assert.equal(broker.versions, null);
    assert.equal(typeof broker.connect, "function");
    assert.equal(typeof broker.disconnect, "function");
  });

  it("compute CRC-32C", () => {
    // The check value of RFC 3720, appendix B.4, for "123456789".
    assert.equal(crc32c(Buffer.from("123456789")) >>> 0, 0xe3069283);
  });

  it("name error codes, and those that kafkajs does not know", () => {
    assert.match(new BrokerError(3).message, /^UNKNOWN_TOPIC_OR_PARTITION: This server does not host/);
    assert.equal(new BrokerError(100).type, "UNKNOWN_TOPIC_ID");
    assert.equal(new BrokerError(999).type, "ERROR_999");
  });

  it("are missing from an object that is not a client", () => {
    assert.throws(() => createCluster({} as Kafka), /This version of kafkajs has no createCluster/);
  });
});
