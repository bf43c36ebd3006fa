import assert from "node:assert/strict";
import { once } from "node:events";
import { type AddressInfo, createServer } from "node:net";
import { describe, it } from "node:test";
import { Caller } from "./caller.ts";

describe("Caller", () => {
  it("rejects calls on a connection that the server has closed, before and after it notices", async () => {
    const server = createServer((socket) => socket.destroy()).listen(0, "127.0.0.1");
    await once(server, "listening");
    const caller = new Caller(`http://127.0.0.1:${(server.address() as AddressInfo).port}`, 1);
    const call = { path: "/Service/Method", frame: Buffer.alloc(5) };
    try {
      await assert.rejects(caller.call(call), /has closed the connection|ECONNRESET|EPIPE/);
      await assert.rejects(caller.call(call), /was not sent: the server has closed the connection/);
    } finally {
      caller.close();
      server.close();
    }
  });
});
