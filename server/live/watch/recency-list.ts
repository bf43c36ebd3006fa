/** A product that changed, linked in the order of its latest change. */
interface Node {
  readonly productId: string;
  /** The position of its latest change. */
  sequence: number;
  /** The position at which its details last changed, or at which it appeared or was deleted. */
  detailsSequence: number;
  older: Node | undefined;
  newer: Node | undefined;
}

/** One product that changed after a position. */
export interface RecentChange {
  readonly productId: string;
  /** The position after this change and all changes before it. */
  readonly sequence: number;
  /** Whether the details changed too. */
  readonly details: boolean;
}

/**
 * The products that changed, in the order of their latest change. A watch needs no queue: from its position it finds
 * what changed since, each product once, so a slow reader costs one number.
 */
export class RecencyList {
  readonly #nodes = new Map<string, Node>();
  #newest: Node | undefined;
  #sequence = 0;

  /** The position after all changes. It grows with every change of any product. */
  get sequence(): number {
    return this.#sequence;
  }

  /** Moves a product to the newest end. */
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

  /** Up to `limit` products that changed after a position, oldest change first. */
  after(sequence: number, limit: number): RecentChange[] {
    let node = this.#newest;
    if (node === undefined || node.sequence <= sequence) {
      return [];
    }
    while (node.older !== undefined && node.older.sequence > sequence) {
      node = node.older;
    }
    const changes: RecentChange[] = [];
    for (let next: Node | undefined = node; next !== undefined && changes.length < limit; next = next.newer) {
      changes.push(changeOf(next, sequence));
    }
    return changes;
  }

  /** Those of the given products that changed after a position, oldest change first. */
  afterAmong(sequence: number, productIds: Iterable<string>): RecentChange[] {
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

function changeOf(node: Node, position: number): RecentChange {
  return { productId: node.productId, sequence: node.sequence, details: node.detailsSequence > position };
}
