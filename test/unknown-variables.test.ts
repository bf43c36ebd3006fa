import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { VARIABLES } from "../server/config.ts";
import { findUnknownVariables } from "../server/unknown-variables.ts";

const meantBy = (name: string, value = "x"): readonly string[] | undefined =>
  findUnknownVariables({ [name]: value }, VARIABLES)[0]?.meant;

describe("findUnknownVariables", () => {
  const MISSPELLED: Readonly<Record<string, string>> = {
    KAFKA_BROKER: "KAFKA_BROKERS",
    KAFKA_BROKER_LIST: "KAFKA_BROKERS",
    KAFKABROKERS: "KAFKA_BROKERS",
    REDDIS_URL: "REDIS_URL",
    REDIS_URI: "REDIS_URL",
    redis_url: "REDIS_URL",
    REDIS_PASS: "REDIS_PASSWORD",
    AUTH_TOKEN: "AUTH_TOKENS",
    AUTH_TOKEN_FILE: "AUTH_TOKENS_FILE",
    TLS_CRT: "TLS_CERT",
    LOGLEVEL: "LOG_LEVEL",
    LOG_LEVL: "LOG_LEVEL",
    TRUSTED_PROXY: "TRUSTED_PROXIES",
    EMBED_ORIGIN: "EMBED_ORIGINS",
    LOW_STOCK: "LOW_STOCK_MAX",
    DRAIN_WAIT: "DRAIN_WAIT_MS",
    INVENTORY_BUKETS: "INVENTORY_BUCKETS",
    INVENTORY_PORT: "PORT",
    INVENTORY_REDIS_URL: "REDIS_URL",
    PROT: "PORT",
    HOSTS: "HOST",
  };
  for (const [name, meant] of Object.entries(MISSPELLED)) {
    it(`suggests ${meant} for ${name}`, () => assert.deepEqual(meantBy(name), [meant]));
  }

  it("finds each known variable with one letter missing, doubled, replaced or swapped", () => {
    for (const known of VARIABLES) {
      for (const [at, letter] of [...known].entries()) {
        const [before, after] = [known.slice(0, at), known.slice(at + 1)];
        const swapped = before + (known[at + 1] ?? "") + letter + known.slice(at + 2);
        for (const name of [
          before + after,
          before + letter + letter + after,
          `${before}X${after}`,
          swapped,
        ]) {
          if (!VARIABLES.includes(name) && name.length >= 4) {
            assert.ok(meantBy(name), `${name}, from ${known}`);
          }
        }
      }
    }
  });

  it("lists the variables with the same prefix if none is near", () => {
    const meant = meantBy("KAFKA_BOOTSTRAP_SERVERS") ?? [];
    assert.ok(meant.includes("KAFKA_BROKERS"), meant.join());
    assert.deepEqual(
      meant,
      VARIABLES.filter((name) => name.startsWith("KAFKA_")),
    );
    assert.ok(meantBy("INVENTORY_FOO")?.includes("INVENTORY_BUCKETS"));
  });

  it("ignores known, empty and foreign variables", () => {
    const foreign =
      "HOSTNAME HOME PATH PWD SHLVL TERM LANG LC_ALL USER LOGNAME SHELL MAIL EDITOR TZ TMPDIR DISPLAY " +
      "SSH_AUTH_SOCK SSL_CERT_FILE NODE_ENV NODE_OPTIONS NODE_EXTRA_CA_CERTS NODE_COMPILE_CACHE npm_config_port " +
      "npm_package_name CI GITHUB_TOKEN JAVA_HOME KAFKA_HOME KAFKA_HEAP_OPTS REDIS_VERSION HTTP_PROXY http_proxy " +
      "AWS_REGION PGHOST PGPORT MYSQL_HOST DB_HOST DB_PORT HTTP_PORT MAIL_HOST SMTP_PORT COLUMNS LINES PS1 " +
      "INVOCATION_ID NOTIFY_SOCKET POD_NAME POD_IP HOST_IP FORCE_COLOR LOG_FILE ADMIN_PASSWORD DEBUG " +
      "OTEL_RESOURCE_ATTRIBUTES OTEL_EXPORTER_OTLP_PROTOCOL OTEL_TRACES_EXPORTER KUBERNETES_PORT " +
      "KUBERNETES_SERVICE_HOST REDIS_SERVICE_HOST REDIS_PORT_6379_TCP REDIS_PORT_6379_TCP_ADDR " +
      "INVENTORY_SERVICE_PORT_GRPC";
    const environment = Object.fromEntries(foreign.split(" ").map((name) => [name, "x"]));
    assert.deepEqual(findUnknownVariables(environment, VARIABLES), []);
    assert.deepEqual(findUnknownVariables({ PORT: "1", KAFKA_BROKER: "" }, VARIABLES), []);
    assert.equal(meantBy("INVENTORY_PORT", "tcp://10.0.0.7:8080"), undefined);
  });
});
