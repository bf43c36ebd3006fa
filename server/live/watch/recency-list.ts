/** A product that changed, in the order of its latest change. */
interface Node {
  readonly productId: string;
  /** Grows with every change of any product. */
  sequence: number;
  /** The sequence at which its details last changed, or it appeared or vanished. */
  detailsSequence: number;
  older: Node | undefined;
  newer: Node | undefined;
}

/** One product that changed after a watcher's place. */
export interface RecentChange {
  readonly productId: string;
  /** The place of a watcher that has seen this change and all before it. */
  readonly sequence: number;
  /** Whether the details changed, too. */
  readonly details: boolean;
}

/**
 * Which products changed last, newest at the end. A watcher needs no queue of its own: the sequence
 * that it has seen is enough to find what changed since, each product once, so a slow reader costs a
 * number.
 */
export class RecencyList {
  readonly #nodes = new Map<string, Node>();
  #newest: Node | undefined;
  #sequence = 0;

  /** The place of a watcher that has seen everything. */
  get sequence(): number {
    return this.#sequence;
  }

  touch(productId: string, details: boolean): void {
    this.#sequence += 1;
    let node = this.#nodes.get(productId);
    if (node === undefined) {
      node = { productId, sequence: 0, detailsSequence: 0, older: undefined, newer: undefined };
      this.#nodes.set(productId, node);
    }
    this.#unlink(node);
    node.older = this.#newest;
    if (this.#newest !== undefined) {
      this.#newest.newer = node;
    }
    this.#newest = node;
    node.sequence = this.#sequence;
    if (details) {
      node.detailsSequence = this.#sequence;
    }
  }

  /** What changed after a place, oldest change first, and at most so many. */
  after(sequence: number, most: number): RecentChange[] {
    let node = this.#newest;
    if (node === undefined || node.sequence <= sequence) {
      return [];
    }
    while (node.older !== undefined && node.older.sequence > sequence) {
      node = node.older;
    }
    const changes: RecentChange[] = [];
    for (let next: Node | undefined = node; next !== undefined && changes.length < most; next = next.newer) {
      changes.push(changeOf(next, sequence));
    }
    return changes;
  }

  /** The same of the named products alone, all of them. */
  afterOf(sequence: number, productIds: Iterable<string>): RecentChange[] {
    const changes: RecentChange[] = [];
    for (const productId of productIds) {
      const node = this.#nodes.get(productId);
      if (node !== undefined && node.sequence > sequence) {
        changes.push(changeOf(node, sequence));
      }
    }
    return changes.sort((a, b) => a.sequence - b.sequence);
  }

  #unlink(node: Node): void {
    if (node.older !== undefined) {
      node.older.newer = node.newer;
    }
    if (node.newer !== undefined) {
      node.newer.older = node.older;
    } else if (this.#newest === node) {
      this.#newest = node.older;
    }
    node.older = undefined;
    node.newer = undefined;
  }
}

function changeOf(node: Node, seen: number): RecentChange {
  return { productId: node.productId, sequence: node.sequence, details: node.detailsSequence > seen };
}
