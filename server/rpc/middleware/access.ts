import { Code, ConnectError } from "@connectrpc/connect";
import type { Logger } from "pino";
import type { CertificateCheck } from "../../access/certificates.ts";
import { type JwtCheck, KeysUnavailable } from "../../access/jwt.ts";
import { type AccessRule, ruleOf } from "../../access/policy.ts";
import type { Principal } from "../../access/principal.ts";
import type { TokenCheck } from "../../access/tokens.ts";
import { InventoryError } from "../../inventory/errors.ts";
import { throttledLog } from "../../ops/throttled-log.ts";
import { type Call, type CallMiddleware, procedureOf } from "../call.ts";

/** How callers prove who they are. */
export interface AccessChecks {
  readonly token: TokenCheck | undefined;
  readonly jwt: JwtCheck | undefined;
  readonly certificate: CertificateCheck | undefined;
}

const BEARER = /^bearer +(\S+)$/i;
/** Refusals told to the log in a second. */
const REFUSALS_LOGGED_MAX = 10;

/**
 * Lets a call in where its service is for everybody, or its caller has a role for it. Callers are told what is missing,
 * and never why a token was not accepted; the log is told why, and never the token.
 */
export function accessMiddleware(checks: AccessChecks, log: Logger): CallMiddleware {
  const throttled = throttledLog(log, REFUSALS_LOGGED_MAX);

  function tell(call: Call, reason: string): void {
    const { caller, principal, requestId, traceId } = call;
    const method = procedureOf(call.method);
    throttled.warn(
      { method, caller: principal?.name, address: caller.address, requestId, traceId, reason },
      "A call was refused for its caller",
    );
  }

  function admit(
    call: Call,
    principal: Principal | undefined,
    roles: Exclude<AccessRule, "everybody">,
  ): void {
    if (principal === undefined) {
      throw unauthenticated(
        "This method is for callers that are known: send a token as authorization: Bearer …",
      );
    }
    call.principal = principal;
    if (!roles.some((role) => principal.roles.has(role))) {
      const needed = roles.join(" or ");
      tell(call, `The caller has not the role ${needed}`);
      throw new ConnectError(`This method needs the role ${needed}`, Code.PermissionDenied);
    }
  }

  async function admitJwt(
    call: Call,
    check: JwtCheck,
    token: string,
    roles: Exclude<AccessRule, "everybody">,
  ): Promise<void> {
    let principal: Principal;
    try {
      principal = await check.verify(token);
    } catch (error) {
      if (error instanceof KeysUnavailable) {
        throttled.error(
          { err: error, requestId: call.requestId, traceId: call.traceId },
          "Tokens cannot be checked: the issuer's keys cannot be had",
        );
        throw new InventoryError(
          "STORE_UNAVAILABLE",
          "Tokens cannot be checked at the moment; try again shortly",
        );
      }
      tell(call, error instanceof Error ? error.message : String(error));
      throw unauthenticated("The token is not accepted");
    }
    admit(call, principal, roles);
  }

  return {
    enter(call) {
      const rule = ruleOf(call.method.parent.typeName);
      if (rule === "everybody") {
        return;
      }
      const token = BEARER.exec(call.headers.authorization ?? "")?.[1];
      if (token === undefined) {
        return admit(call, checks.certificate?.(call.caller.connection), rule);
      }
      const known = checks.token?.(token) ?? checks.jwt?.recall(token);
      if (known !== undefined) {
        return admit(call, known, rule);
      }
      if (checks.jwt !== undefined) {
        return admitJwt(call, checks.jwt, token, rule);
      }
      tell(call, "The token is nobody's");
      throw unauthenticated("The token is not accepted");
    },
  };
}

function unauthenticated(message: string): ConnectError {
  return new ConnectError(message, Code.Unauthenticated, { "www-authenticate": "Bearer" });
}
