/**
 * Asks the service in this container whether it lives, and exits with 0 if it does: the image's health check, which
 * has no curl. It reads the same PORT, HOST and TLS_CERT as the service; the certificate names another host than loopback.
 */
import { request as requestPlain } from "node:http";
import { request as requestTls } from "node:https";

const RESPONSE_MS_MAX = 2_500;

const { HOST, PORT, TLS_CERT } = process.env;
const options = {
  host: !HOST || HOST === "0.0.0.0" ? "127.0.0.1" : HOST === "::" ? "::1" : HOST,
  port: PORT || "8080",
  path: "/healthz",
  signal: AbortSignal.timeout(RESPONSE_MS_MAX),
};
const request = TLS_CERT ? requestTls({ ...options, rejectUnauthorized: false }) : requestPlain(options);
request.once("response", (response) => {
  response.resume();
  process.exitCode = response.statusCode === 200 ? 0 : 1;
});
request.once("error", (error) => {
  process.stderr.write(`${error.message}\n`);
  process.exitCode = 1;
});
request.end();
