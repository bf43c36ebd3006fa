import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { after, before, describe, it } from "node:test";
import { exportJWK, generateKeyPair, SignJWT } from "jose";
import { startAppProcess } from "../support/app.ts";
import { freePort } from "../support/free-port.ts";
import { startTraceCollector } from "../support/trace-collector.ts";
import { until } from "../support/until.ts";
import { type RawRequest, SEND } from "./raw-request.ts";

/** The length of a substring of a token that counts as a leak. */
const PART_LENGTH = 10;
const RESERVE = "/inventory.v1.ReservationService/Reserve";
const GET_LEDGER = "/inventory.v1.SupplyService/GetLedger?connect=v1&encoding=json&message=%7B%7D";

/** Ways to send a token, correct and incorrect. */
const AUTHORIZATIONS: readonly ((token: string) => string)[] = [
  (token) => `Bearer ${token}`,
  (token) => `Bearer ${token}é`,
  (token) => `Bearer ${token} ${token}`,
  (token) => `Bearer ${token.repeat(Math.ceil(17_000 / token.length))}`,
  (token) => `Basic ${token}`,
  (token) => token,
];

const JSON_TYPE = { "content-type": "application/json" };
const POST = { method: "POST", path: RESERVE, headers: JSON_TYPE, body: '{"reservationId":"r1"}' };
const REQUESTS: readonly ((token: string) => RawRequest)[] = [
  () => POST,
  () => ({ method: "GET", path: GET_LEDGER, headers: {}, body: "" }),
  (token) => ({ ...POST, path: `${RESERVE}?access_token=${token}` }),
  (token) => ({ ...POST, path: `/${token}`, headers: { cookie: `token=${token}` } }),
];

/** Bytes that are not HTTP. */
const UNREADABLE: readonly ((token: string) => string)[] = [
  (token) => `POST ${RESERVE} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer ${token}\0\r\n\r\n`,
  (token) => `POST ${RESERVE} HTTP/1.1\r\nHost: localhost\r\nAuthorization Bearer ${token}\r\n\r\n`,
  (token) => `${token}\r\n\r\n`,
  (token) => `PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n${token}`,
];

/** A token of the form that `npm run token` generates. */
const newToken = (): string => randomBytes(32).toString("base64url");

function partsOf(token: string): string[] {
  return Array.from({ length: token.length - PART_LENGTH + 1 }, (_, at) => token.slice(at, at + PART_LENGTH));
}

/** Sends raw bytes and returns the response; empty if the connection is closed. */
function sendBytes(port: number, bytes: string): Promise<string> {
  const socket = connect(port, "127.0.0.1");
  socket.end(bytes, "latin1");
  return text(socket).catch(() => "");
}

describe("a token", () => {
  const issuer = { iss: "https://issuer.example", aud: "inventory" };
  let dir: string;
  let jwks: string;
  let sign: (claims: Readonly<Record<string, unknown>>) => Promise<string>;
  before(async () => {
    dir = await mkdtemp(join(tmpdir(), "inventory-secrecy-"));
    jwks = join(dir, "jwks.json");
    const { privateKey, publicKey } = await generateKeyPair("ES256", { extractable: true });
    await writeFile(jwks, JSON.stringify({ keys: [await exportJWK(publicKey)] }));
    const exp = Math.floor(Date.now() / 1_000) + 600;
    sign = (claims) =>
      new SignJWT({ ...issuer, exp, ...claims }).setProtectedHeader({ alg: "ES256" }).sign(privateKey);
  });
  after(() => rm(dir, { recursive: true }));

  for (const [what, LANE, hasKeys] of [
    ["with LANE=on", "on", true],
    ["with LANE=off, while the issuer's keys cannot be had,", "off", false],
  ] as const) {
    it(`${what} does not appear in any log, trace, metric or response, not even in part`, async () => {
      const accepted = newToken();
      const signed = await sign({ sub: "jwt-caller", role: "orders" });
      const tokens = [
        ...[accepted, newToken()],
        ...[signed, signed.slice(0, -30) + newToken().slice(0, 30)],
        ...[await sign({ sub: "jwt-nobody" }), await sign({ sub: "jwt-late", role: "orders", exp: 1 })],
      ];

      await using collector = await startTraceCollector();
      const adminPort = await freePort();
      await using app = await startAppProcess({
        LANE,
        LOG_LEVEL: "trace",
        ADMIN_PORT: String(adminPort),
        AUTH_TOKENS: `orders-service:orders:${createHash("sha256").update(accepted).digest("hex")}`,
        AUTH_JWKS: hasKeys ? jwks : `http://127.0.0.1:${await freePort()}/jwks`,
        AUTH_JWT_ISSUER: issuer.iss,
        AUTH_JWT_AUDIENCE: issuer.aud,
        OTEL_EXPORTER_OTLP_ENDPOINT: collector.endpoint,
        OTEL_BSP_SCHEDULE_DELAY: "10",
      });

      // The log is limited to ten rejections a second: the first ones are of every kind.
      const responses: string[] = [];
      for (const authorizationOf of AUTHORIZATIONS) {
        for (const requestOf of REQUESTS) {
          for (const send of Object.values(SEND)) {
            for (const token of tokens) {
              const request = requestOf(token);
              const headers = { ...request.headers, authorization: authorizationOf(token) };
              const response = await send(app.port, { ...request, headers });
              responses.push(`${JSON.stringify(response.headers)} ${response.body}`);
            }
          }
        }
      }
      for (const bytesOf of UNREADABLE) {
        for (const token of tokens) {
          responses.push(await sendBytes(app.port, bytesOf(token)));
        }
      }
      const last = randomBytes(16).toString("hex");
      const traceparent = `00-${last}-00f067aa0ba902b7-01`;
      const headers = { ...JSON_TYPE, traceparent, authorization: `Bearer ${accepted}` };
      await SEND["1.1"](app.port, { ...POST, headers });

      const log = await until(async () => {
        const output = await app.output();
        return output.includes(last) && output;
      }, "the last call is logged");
      const spans = await until(() => {
        const text = JSON.stringify(collector.spans);
        return text.includes(last) && text;
      }, "the last call is traced");
      const metrics = await (await fetch(`http://127.0.0.1:${adminPort}/metrics`)).text();
      assert.match(metrics, /grpc_server_handled_total\{[^}]*grpc_code="Unauthenticated"/);
      assert.match(log, /"caller":"orders-service"/);
      assert.match(log, hasKeys ? /"caller":"jwt-caller"/ : /the issuer's keys are unavailable/);

      for (const [where, text] of Object.entries({ log, spans, metrics, responses: responses.join("\n") })) {
        for (const part of tokens.flatMap(partsOf)) {
          // Not `doesNotMatch`, which would print the whole text.
          assert.ok(!text.includes(part), `${where}: ${text.slice(text.indexOf(part) - 200).slice(0, 300)}`);
        }
      }
    });
  }
});
