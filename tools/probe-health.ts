/**
 * The health check of the image, which has no curl: requests /healthz of the service in this container, and exits with 0 at
 * status 200. It reads PORT, HOST and TLS_CERT like the service. The certificate is not verified: its host is not loopback.
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
