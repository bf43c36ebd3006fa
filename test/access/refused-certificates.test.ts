import assert from "node:assert/strict";
import { X509Certificate } from "node:crypto";
import { after, before, describe, it } from "node:test";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { pino } from "pino";
import { ReservationService } from "../../gen/inventory/v1/reservation_pb.ts";
import { StockService } from "../../gen/inventory/v1/stock_pb.ts";
import { startTestApp, type TestApp } from "../support/app.ts";
import { type Authority, type Certificate, createAuthority } from "../support/certificates.ts";
import { need } from "../support/programs.ts";
import { until } from "../support/until.ts";
import { AUTH_TOKENS, PROTOCOLS } from "./callers.ts";

const NAME = "orders.shop.example";
const DAY_MS = 86_400_000;
const daysFromNow = (days: number): Date => new Date(Date.now() + days * DAY_MS);

interface Line {
  readonly level: number;
  readonly msg: string;
  readonly reason?: string;
  readonly explanation?: string;
  readonly caller?: string;
  readonly verificationError?: string;
  readonly certificate?: Readonly<Record<string, string>>;
}

interface LoggedApp extends TestApp {
  readonly lines: Line[];
}

interface Refused {
  readonly what: string;
  readonly issue: () => Promise<Certificate>;
  readonly reason: string;
  readonly explanation: RegExp;
  readonly verificationError: RegExp | undefined;
}

describe("refused client certificates", { skip: need("openssl").missing }, () => {
  let authority: Authority;
  let otherAuthority: Authority;
  let environment: NodeJS.ProcessEnv;
  before(async () => {
    authority = await createAuthority();
    otherAuthority = await createAuthority();
    const server = await authority.issue("localhost", "DNS:localhost,IP:127.0.0.1");
    environment = {
      TLS_CERT: server.certFile,
      TLS_KEY: server.keyFile,
      TLS_CLIENT_CA: authority.certFile,
      TLS_CLIENT_ROLES: `${NAME}:orders`,
      ADMIN_PORT: "0",
    };
  });
  after(async () => {
    await authority?.[Symbol.asyncDispose]();
    await otherAuthority?.[Symbol.asyncDispose]();
  });

  /** A server of its own for each test: the log is throttled. */
  async function start(more: NodeJS.ProcessEnv = {}): Promise<LoggedApp> {
    const lines: Line[] = [];
    const log = pino({ level: "info" }, { write: (line: string) => lines.push(JSON.parse(line)) });
    const app = await startTestApp({ ...environment, ...more }, { log });
    lines.length = 0;
    return Object.assign(app, { lines });
  }

  /** The error of a call that needs a role, with this certificate. */
  async function errorWith(
    app: TestApp,
    certificate: Certificate | undefined,
    createTransport = PROTOCOLS["gRPC"],
  ): Promise<ConnectError> {
    assert.ok(createTransport);
    const nodeOptions = {
      ca: authority.cert,
      ...(certificate && { cert: certificate.cert, key: certificate.key }),
    };
    const transport = createTransport({ baseUrl: app.url, interceptors: [], nodeOptions });
    await assert.rejects(createClient(StockService, transport).getStock({ productId: "p1" }), {
      code: Code.NotFound,
    });
    const call = createClient(ReservationService, transport).getReservation({ reservationId: "r1" });
    return await call.then(
      () => assert.fail("the call was accepted"),
      (error: unknown) => ConnectError.from(error),
    );
  }

  async function metric(app: TestApp, name: string): Promise<number> {
    const text = await (await fetch(`${app.adminUrl}/metrics`)).text();
    const line = text.split("\n").find((each) => each.startsWith(`${name} `));
    return Number(line?.slice(name.length + 1));
  }

  const REFUSED: readonly Refused[] = [
    {
      what: "expired",
      issue: () => authority.issueBetween(NAME, daysFromNow(-30), daysFromNow(-1)),
      reason: "expired",
      explanation: /it expired at \d{4}-\d\d-\d\dT[\d:.]+Z$/,
      verificationError: /^CERT_HAS_EXPIRED$/,
    },
    {
      what: "not yet valid",
      issue: () => authority.issueBetween(NAME, daysFromNow(1), daysFromNow(30)),
      reason: "not_yet_valid",
      explanation: /it is valid from \d{4}-\d\d-\d\dT[\d:.]+Z$/,
      verificationError: /^CERT_NOT_YET_VALID$/,
    },
    {
      what: "of another CA",
      issue: () => otherAuthority.issue(NAME),
      reason: "untrusted",
      explanation: /the CA that this server trusts did not sign it \([A-Z_]+\)$/,
      verificationError: /^(UNABLE_TO|CERT_SIGNATURE_FAILURE|SELF_SIGNED)/,
    },
    {
      what: "that signed itself",
      issue: () => Promise.resolve(otherAuthority),
      reason: "untrusted",
      explanation: /the CA that this server trusts did not sign it \([A-Z_]+\)$/,
      verificationError: /^(DEPTH_ZERO_SELF_SIGNED_CERT|UNABLE_TO|CERT_SIGNATURE_FAILURE)/,
    },
    {
      what: "that is not listed",
      issue: () => authority.issue("billing.shop.example", "DNS:billing,DNS:b2"),
      reason: "not_listed",
      explanation: /no role for its names "billing\.shop\.example", "billing", "b2"$/,
      verificationError: undefined,
    },
  ];
  for (const { what, issue, reason, explanation, verificationError } of REFUSED) {
    for (const [protocol, createTransport] of Object.entries(PROTOCOLS)) {
      it(`${protocol}: a certificate ${what} is refused with the reason, logged and counted`, async () => {
        const certificate = await issue();
        await using app = await start();
        const count = `inventory_client_certificates_refused_total{reason="${reason}"}`;
        assert.equal(await metric(app, count), 0);

        const error = await errorWith(app, certificate, createTransport);
        assert.equal(error.code, Code.Unauthenticated);
        assert.match(error.rawMessage, /^The client certificate was refused: /);
        assert.match(error.rawMessage, explanation);
        assert.doesNotMatch(error.rawMessage, /token|Bearer/);

        const x509 = new X509Certificate(certificate.cert);
        const [line, ...more] = app.lines.filter(({ msg }) => msg === "A client certificate was refused");
        assert.ok(line);
        assert.deepEqual(more, [], "once per connection");
        assert.equal(line.level, 40);
        assert.match(line.explanation ?? "", explanation);
        assert.equal(line.reason, reason);
        if (verificationError === undefined) assert.equal(line.verificationError, undefined);
        else assert.match(line.verificationError ?? "", verificationError);
        assert.equal(line.certificate?.["fingerprint"], x509.fingerprint256);
        assert.equal(line.certificate?.["subject"], x509.subject);
        assert.equal(line.certificate?.["issuer"], x509.issuer);
        assert.ok(
          app.lines.some(({ reason: text }) => explanation.test(text ?? "")),
          "the refused call is logged with the same reason",
        );
        assert.equal(await metric(app, count), 1);
      });
    }
  }

  it("are asked for, and not a token, where the server accepts no tokens", async () => {
    await using app = await start();
    const error = await errorWith(app, undefined);
    assert.match(error.rawMessage, /requires authentication: connect with a client certificate$/);
    assert.equal(error.metadata.get("www-authenticate"), "ClientCertificate");
  });

  it("are named beside tokens where the server accepts both", async () => {
    await using app = await start({ AUTH_TOKENS });
    const error = await errorWith(app, undefined);
    assert.match(
      error.rawMessage,
      /send a token as authorization: Bearer …, or connect with a client certificate$/,
    );
    assert.equal(error.metadata.get("www-authenticate"), "Bearer");
  });

  it("are announced before they expire: a warning in the log, and the time in a metric", async () => {
    const expiresAt = daysFromNow(3);
    const soon = await authority.issueBetween(NAME, daysFromNow(-30), expiresAt);
    await using app = await start();
    assert.equal((await errorWith(app, soon)).code, Code.NotFound);
    await until(() => app.lines.length > 0, "the warning is logged");
    assert.deepEqual([app.lines[0]?.msg, app.lines[0]?.caller], ["A client certificate expires soon", NAME]);
    const metricName = `inventory_client_certificate_expiry_timestamp_seconds{name="${NAME}"}`;
    assert.equal(await metric(app, metricName), Math.floor(expiresAt.getTime() / 1_000));
    const later = await authority.issueBetween(NAME, daysFromNow(-1), daysFromNow(60));
    app.lines.length = 0;
    assert.equal((await errorWith(app, later)).code, Code.NotFound);
    assert.deepEqual(app.lines, []);
  });
});
