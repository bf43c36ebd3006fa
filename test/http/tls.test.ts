import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { type ConnectionOptions, connect, type TLSSocket } from "node:tls";
import { pino } from "pino";
import { type Listener, startListener } from "../../server/http/listener/listener.ts";
import { need } from "../support/programs.ts";

/** TLS 1.2 suites that HTTP/2 allows (RFC 9113, appendix A lists the others). */
const ALLOWED = [
  "ECDHE-RSA-AES128-GCM-SHA256",
  "ECDHE-RSA-AES256-GCM-SHA384",
  "ECDHE-RSA-CHACHA20-POLY1305",
] as const;
/** On the list of RFC 9113: without forward secrecy, or without authenticated encryption. */
const BLOCKED = [
  "AES128-SHA",
  "AES256-SHA",
  "AES128-SHA256",
  "AES256-SHA256",
  "AES128-GCM-SHA256",
  "AES256-GCM-SHA384",
  "AES128-CCM",
  "ECDHE-RSA-AES128-SHA",
  "ECDHE-RSA-AES256-SHA",
  "ECDHE-RSA-AES128-SHA256",
  "ECDHE-RSA-AES256-SHA384",
  "ECDHE-RSA-CAMELLIA128-SHA256",
  "DHE-RSA-AES128-SHA",
] as const;

describe("TLS versions and cipher suites", { skip: need("openssl").missing, concurrency: true }, () => {
  let listener: Listener;
  before(async () => {
    listener = await startListener({
      host: "127.0.0.1",
      port: 0,
      handler: (_request, response) => void response.end("hello"),
      tls: rsaCertificate(),
      log: pino({ level: "silent" }),
    });
  });
  after(() => listener?.drain(0));

  async function handshake(options: ConnectionOptions): Promise<TLSSocket> {
    const { port } = listener;
    const socket = connect({ port, host: "127.0.0.1", rejectUnauthorized: false, ...options });
    await once(socket, "secureConnect");
    return socket;
  }
  const tls12 = { minVersion: "TLSv1.2", maxVersion: "TLSv1.2" } as const;

  for (const protocol of ["h2", "http/1.1"]) {
    for (const ciphers of ALLOWED) {
      it(`${protocol} over TLS 1.2 with ${ciphers} is accepted`, async () => {
        const socket = await handshake({ ...tls12, ciphers, ALPNProtocols: [protocol] });
        assert.deepEqual([socket.alpnProtocol, socket.getCipher().name], [protocol, ciphers]);
        socket.destroy();
      });
    }
    for (const ciphers of BLOCKED) {
      it(`${protocol} over TLS 1.2 with ${ciphers} is refused`, async () => {
        // At security level 0 the client offers every suite that its OpenSSL has.
        const options = { ...tls12, ciphers: `${ciphers}@SECLEVEL=0`, ALPNProtocols: [protocol] };
        await assert.rejects(handshake(options), { code: "ERR_SSL_SSL/TLS_ALERT_HANDSHAKE_FAILURE" });
      });
    }

    it(`${protocol} over TLS 1.3 is accepted`, async () => {
      const socket = await handshake({ minVersion: "TLSv1.3", ALPNProtocols: [protocol] });
      assert.deepEqual([socket.alpnProtocol, socket.getProtocol()], [protocol, "TLSv1.3"]);
      socket.destroy();
    });
  }

  it("TLS 1.1 is refused", async () => {
    const options = { minVersion: "TLSv1", maxVersion: "TLSv1.1", ciphers: "ALL@SECLEVEL=0" } as const;
    await assert.rejects(handshake(options), /alert|protocol/i);
  });

  it("renegotiation is refused, as HTTP/2 demands", async () => {
    const socket = await handshake({ ...tls12, ALPNProtocols: ["http/1.1"] });
    socket.on("error", () => {});
    const error = await new Promise<Error | null>((resolve) => {
      socket.once("close", () => resolve(new Error("closed")));
      socket.renegotiate({}, resolve);
      socket.resume();
    });
    assert.ok(error, "the server did not renegotiate");
    socket.destroy();
  });
});

/** With an RSA key: key exchange by RSA, which has no forward secrecy, needs one. */
function rsaCertificate(): { cert: Buffer; key: Buffer } {
  const folder = mkdtempSync(join(tmpdir(), "tls-"));
  try {
    const [cert, key] = [join(folder, "cert.pem"), join(folder, "key.pem")];
    const args = ["req", "-x509", "-newkey", "rsa:2048", "-noenc", "-subj", "/CN=localhost", "-days", "1"];
    execFileSync(need("openssl").path, [...args, "-keyout", key, "-out", cert], { stdio: "ignore" });
    return { cert: readFileSync(cert), key: readFileSync(key) };
  } finally {
    rmSync(folder, { recursive: true });
  }
}
