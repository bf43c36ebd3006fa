import { Code, ConnectError } from "@connectrpc/connect";
import type { Logger } from "pino";
import type { CertificateCheck, CertificateRefusal } from "../../access/certificates.ts";
import { type JwtCheck, KeysUnavailable } from "../../access/jwt.ts";
import { type AccessRule, ruleOf } from "../../access/policy.ts";
import type { Principal } from "../../access/principal.ts";
import type { TokenCheck } from "../../access/tokens.ts";
import { InventoryError } from "../../inventory/errors.ts";
import { throttledLog } from "../../ops/throttled-log.ts";
import { type Call, type CallMiddleware, procedureOf } from "../call.ts";

/** The configured ways to authenticate; each is `undefined` where it is not configured. */
export interface AccessChecks {
  readonly token: TokenCheck | undefined;
  readonly jwt: JwtCheck | undefined;
  readonly certificate: CertificateCheck | undefined;
}

const BEARER = /^bearer +(\S+)$/i;
/** Log lines a second about refused calls. */
const REFUSALS_LOGGED_MAX = 10;

/**
 * Admits a call if its service is public, or if its caller is authenticated and has a role that the service requires.
 * The error names the role that is missing, and why a certificate was refused, but not why a token was: the reason would
 * help an attacker. The log has the reason, but never the token.
 */
export function accessMiddleware(checks: AccessChecks, log: Logger): CallMiddleware {
  const throttled = throttledLog(log, REFUSALS_LOGGED_MAX);
  const takesTokens = checks.token !== undefined || checks.jwt !== undefined;

  /** RFC 9110, section 11.6.1, requires a challenge with each 401. */
  function unauthenticated(message: string): ConnectError {
    const challenge = takesTokens ? "Bearer" : "ClientCertificate";
    return new ConnectError(message, Code.Unauthenticated, { "www-authenticate": challenge });
  }

  function unidentified(call: Call, refusal: CertificateRefusal | undefined): ConnectError {
    if (refusal !== undefined) {
      logRefusal(call, `The client certificate was refused: ${refusal.explanation}`);
      return unauthenticated(`The client certificate was refused: ${refusal.explanation}`);
    }
    const ways = [
      ...(takesTokens ? ["send a token as authorization: Bearer …"] : []),
      ...(checks.certificate ? ["connect with a client certificate"] : []),
    ];
    return unauthenticated(`This method requires authentication: ${ways.join(", or ")}`);
  }

  function logRefusal(call: Call, reason: string): void {
    const { caller, principal, requestId, traceId } = call;
    const method = procedureOf(call.method);
    throttled.warn(
      { method, caller: principal?.name, address: caller.address, requestId, traceId, reason },
      "A call was refused: authentication or authorization failed",
    );
  }

  function authorize(call: Call, principal: Principal, roles: Exclude<AccessRule, "public">): void {
    call.principal = principal;
    if (!roles.some((role) => principal.roles.has(role))) {
      const needed = roles.join(" or ");
      logRefusal(call, `The caller does not have the role ${needed}`);
      throw new ConnectError(`This method requires the role ${needed}`, Code.PermissionDenied);
    }
  }

  async function authenticateJwt(
    call: Call,
    check: JwtCheck,
    token: string,
    roles: Exclude<AccessRule, "public">,
  ): Promise<void> {
    let principal: Principal;
    try {
      principal = await check.verify(token);
    } catch (error) {
      if (error instanceof KeysUnavailable) {
        throttled.error(
          { err: error, requestId: call.requestId, traceId: call.traceId },
          "Tokens cannot be verified: the issuer's keys are unavailable",
        );
        throw new InventoryError(
          "STORE_UNAVAILABLE",
          "Tokens cannot be verified at the moment; try again shortly",
        );
      }
      logRefusal(call, error instanceof Error ? error.message : String(error));
      throw unauthenticated("The token is not accepted");
    }
    authorize(call, principal, roles);
  }

  return {
    enter(call) {
      const rule = ruleOf(call.method.parent.typeName);
      if (rule === "public") {
        return;
      }
      const token = BEARER.exec(call.headers.authorization ?? "")?.[1];
      if (token === undefined) {
        const { principal, refusal } = checks.certificate?.(call.caller.connection) ?? {};
        if (principal === undefined) {
          throw unidentified(call, refusal);
        }
        return authorize(call, principal, rule);
      }
      const known = checks.token?.(token) ?? checks.jwt?.cached(token);
      if (known !== undefined) {
        return authorize(call, known, rule);
      }
      if (checks.jwt !== undefined) {
        return authenticateJwt(call, checks.jwt, token, rule);
      }
      logRefusal(call, "Unknown token");
      throw unauthenticated("The token is not accepted");
    },
  };
}
