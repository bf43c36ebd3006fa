import type { Message, Reply } from "../inventory/sharded/messages.ts";
import { Decisions } from "./decisions.ts";
import { Holds } from "./holds.ts";
import type { Operations } from "./operations.ts";
import type { Products } from "./products.ts";

/** One bucket: the steps of the protocol that change it. Each is atomic. */
export class Bucket {
  readonly decisions: Decisions;
  readonly holds: Holds;

  constructor(products: Products, operations: Operations, now: () => number, retentionMs: number) {
    this.decisions = new Decisions(operations, now, retentionMs);
    this.holds = new Holds(products, now, retentionMs, (reservationId, returnId, change) =>
      operations.addChange({ field: "return_id", ownerId: reservationId, id: returnId }, change),
    );
  }

  take(message: Message): Reply {
    switch (message.step) {
      case "hold":
        return this.holds.hold(message);
      case "cancel":
        return this.holds.cancel(message);
      case "apply":
        return this.holds.apply(message);
      case "read":
        return this.decisions.read(message);
      case "decide":
        return this.decisions.decide(message);
      case "refuse":
        return this.decisions.refuse(message);
      case "commit":
        return this.decisions.commit(message);
      case "revive":
        return this.decisions.revive(message);
      case "release":
        return this.decisions.release(message);
      case "extend":
        return this.decisions.extend(message);
      case "return":
        return this.decisions.return(message);
      case "settle":
        return this.decisions.settle(message);
    }
  }
}
