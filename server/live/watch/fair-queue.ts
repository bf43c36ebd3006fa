import { type Linked, LinkedQueue } from "./linked-queue.ts";

/** Items with which a flow is sparse. A browser has one watch for all its tabs. */
const SPARSE_ITEMS_MAX = 4;
/**
 * Items of a flow that is not sparse which are served in a row. 100: all watches that a connection may have by default, so
 * that their frames leave in one write.
 */
const QUANTUM = 100;

/** An item of a `FairQueue`, which sets all fields but `flow`. */
export interface FairItem<Item extends FairItem<Item>> extends Linked<Item> {
  readonly flow: Flow<Item>;
  isQueued: boolean;
}

/** The queued items of one source, such as a connection. */
export class Flow<Item extends FairItem<Item>> extends LinkedQueue<Item> implements Linked<Flow<Item>> {
  next: Flow<Item> | undefined;
  /** Whether it is in one of the lists of its `FairQueue`. */
  isActive = false;
  /** Items that may still be served in its turn. */
  credits = 0;
}

/**
 * Fair queuing: the many items of one flow do not delay the few of another. The order is that of FQ-CoDel's scheduler (RFC 8290,
 * sections 4.1 and 4.2), where each item costs 1. A flow that becomes active is served before the others if it is sparse. The
 * others have deficit round robin. A sparse flow that was served joins them, even without items, and leaves when its turn comes:
 * only then may it be served before them again, so that sparse flows starve no other.
 */
export class FairQueue<Item extends FairItem<Item>> {
  /** Flows that became active. Each has items. */
  readonly #sparse = new LinkedQueue<Flow<Item>>();
  readonly #others = new LinkedQueue<Flow<Item>>();

  /** Whether no flow is active. After its last item, a queue is empty when `shift` has returned `undefined`. */
  get isEmpty(): boolean {
    return this.#sparse.length + this.#others.length === 0;
  }

  /** Does nothing if the item is queued already. */
  push(item: Item): void {
    if (item.isQueued) {
      return;
    }
    const { flow } = item;
    item.isQueued = true;
    flow.push(item);
    if (!flow.isActive) {
      flow.isActive = true;
      flow.credits = SPARSE_ITEMS_MAX;
      this.#sparse.push(flow);
    }
  }

  shift(): Item | undefined {
    const item = this.#shiftSparse() ?? this.#shiftOther();
    if (item !== undefined) {
      item.isQueued = false;
    }
    return item;
  }

  #shiftSparse(): Item | undefined {
    for (let flow = this.#sparse.first; flow !== undefined; flow = this.#sparse.first) {
      if (flow.length > flow.credits) {
        this.#sparse.shift();
        this.#join(flow);
        continue;
      }
      flow.credits -= 1;
      const item = flow.shift();
      if (flow.length === 0) {
        this.#sparse.shift();
        if (this.#others.length > 0) {
          this.#join(flow);
        } else {
          flow.isActive = false;
        }
      }
      return item;
    }
    return undefined;
  }

  #shiftOther(): Item | undefined {
    for (let flow = this.#others.first; flow !== undefined; flow = this.#others.first) {
      if (flow.length > 0 && flow.credits > 0) {
        flow.credits -= 1;
        return flow.shift();
      }
      this.#others.shift();
      if (flow.length > 0) {
        this.#join(flow);
      } else {
        flow.isActive = false;
      }
    }
    return undefined;
  }

  #join(flow: Flow<Item>): void {
    flow.credits = QUANTUM;
    this.#others.push(flow);
  }
}
