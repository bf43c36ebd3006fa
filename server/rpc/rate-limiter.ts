import { externalNetworkOf } from "../http/client-network.ts";

/** Addresses in one generation. Two generations are kept: about 10 MB. */
const GENERATION_MAX = 50_000;
const SECOND_MS = 1_000;
/** Capacity of a bucket, in seconds of its rate. */
const BURST_SECONDS = 2;

interface Bucket {
  tokens: number;
  /** Milliseconds of `performance.now()`. */
  refilledAt: number;
}

/**
 * A token bucket per public network. Keeps the most recently used addresses, in two generations: removing the oldest
 * entries of one Map singly gets slower with each removal (up to 100 µs measured), which would slow every
 * call in a burst from many addresses.
 */
export class RateLimiter {
  readonly #perSecond: number;
  #recent = new Map<string, Bucket>();
  #previous = new Map<string, Bucket>();

  /** 0: unlimited. */
  constructor(perSecond: number) {
    this.#perSecond = perSecond;
  }

  /** Takes a token. Returns false where there is none. */
  take(address: string): boolean {
    const bucket = this.#bucketOf(address);
    if (bucket === undefined) {
      return true;
    }
    if (bucket.tokens < 1) {
      return false;
    }
    bucket.tokens -= 1;
    return true;
  }

  /** Whether there is a token. */
  has(address: string): boolean {
    const bucket = this.#bucketOf(address);
    return bucket === undefined || bucket.tokens >= 1;
  }

  /** Number of addresses kept. */
  get size(): number {
    return this.#recent.size + this.#previous.size;
  }

  #bucketOf(address: string): Bucket | undefined {
    const key = this.#perSecond === 0 ? undefined : externalNetworkOf(address);
    if (key === undefined) {
      return undefined;
    }
    const now = performance.now();
    const capacity = this.#perSecond * BURST_SECONDS;
    const bucket = this.#recent.get(key) ?? this.#previous.get(key) ?? { tokens: capacity, refilledAt: now };
    bucket.tokens = Math.min(
      capacity,
      bucket.tokens + ((now - bucket.refilledAt) / SECOND_MS) * this.#perSecond,
    );
    bucket.refilledAt = now;
    this.#keep(key, bucket);
    return bucket;
  }

  #keep(key: string, bucket: Bucket): void {
    if (this.#recent.has(key)) return;
    this.#previous.delete(key);
    if (this.#recent.size === GENERATION_MAX) {
      this.#previous = this.#recent;
      this.#recent = new Map();
    }
    this.#recent.set(key, bucket);
  }
}
