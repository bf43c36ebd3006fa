import { callerActor } from "../inventory/actor.ts";
import { callKey } from "../rpc/call.ts";
import type { CallContext } from "../rpc/fast-path/methods.ts";

/** Who causes the changes of this call: its authenticated caller. Empty where authentication is not configured. */
export function actorOf(context: Pick<CallContext, "values">): string {
  const name = context.values.get(callKey)?.principal?.name;
  return name === undefined ? "" : callerActor(name);
}
