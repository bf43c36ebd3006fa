import { Counter, Gauge, type Registry } from "prom-client";
import { CERTIFICATE_REFUSALS, type CertificateObserver } from "../../access/certificates.ts";
import { type Log, throttledLog } from "../../ops/throttled-log.ts";

const DAY_MS = 86_400_000;
/** Remaining validity of a certificate below which the log warns. */
const EXPIRY_WARNING_MS = 14 * DAY_MS;
const LINES_MAX = 10;

/** Logs and counts the client certificates of connections. The log never has the certificate's key, which the server does not see. */
export function createCertificateObserver(registry: Registry, log: Log): CertificateObserver {
  const throttled = throttledLog(log, LINES_MAX);
  const registers = [registry];
  const refused = new Counter({
    name: "inventory_client_certificates_refused_total",
    help: "Connections whose client certificate was refused, by reason: expired, not_yet_valid, untrusted, not_listed",
    labelNames: ["reason"],
    registers,
  });
  for (const reason of CERTIFICATE_REFUSALS) {
    refused.inc({ reason }, 0);
  }
  const expiry = new Gauge({
    name: "inventory_client_certificate_expiry_timestamp_seconds",
    help: "When the client certificate of this name expires, as seconds since the epoch; of the latest connection that used one",
    labelNames: ["name"],
    registers,
  });
  return {
    onAccepted({ name }, certificate) {
      const expiresAt = Date.parse(certificate.validTo);
      expiry.set({ name }, expiresAt / 1_000);
      if (expiresAt - Date.now() < EXPIRY_WARNING_MS) {
        throttled.warn({ caller: name, certificate }, "A client certificate expires soon");
      }
    },
    onRefused({ reason, explanation, verificationError, certificate }) {
      refused.inc({ reason });
      throttled.warn(
        { reason, explanation, verificationError, certificate },
        "A client certificate was refused",
      );
    },
  };
}
