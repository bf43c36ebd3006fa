import { backoffMs, sleep } from "./backoff.ts";
import type { WatchedStock, WatchMessage } from "./watch-message.ts";

export type ConnectionState = "live" | "reconnecting" | "polling" | "offline";

export interface WatchLoopOptions<Stock extends WatchedStock> {
  /** Opens a stream; ends with the signal. Never called without an ID, which would watch every product. */
  readonly open: (ids: readonly string[], signal: AbortSignal) => AsyncIterable<WatchMessage<Stock>>;
  /** Reads once, where no stream gets through. */
  readonly poll: (ids: readonly string[], signal: AbortSignal) => Promise<WatchMessage<Stock>>;
  readonly onMessage: (message: WatchMessage<Stock>) => void;
  readonly onState: (state: ConnectionState) => void;
  readonly heartbeatMs: number;
}

const RETRY = { firstMs: 500, maxMs: 10_000 };
/** A stream without a message for this long is being buffered on the way: the server sends its snapshot at once. */
const FIRST_MESSAGE_MS_MAX = 5_000;
/** In heartbeats: a stream without a message for this long is dead. */
const WATCHDOG_BEATS = 2.5;
const POLL_INTERVAL_MS = 5_000;
const POLL_MS_MAX = 8_000;
/** Average interval between attempts to stream while polling works. */
const STREAM_RETRY_MS = 30_000;
/** A reconnection that was planned is reported only if it takes longer than this. */
const GRACE_MS = 1_000;
/** Polling starts after this many streams failed before their first message. */
const FAILURES_BEFORE_POLL = 2;
/** Added to the delay that the server asks for, which is at most 1.5 s and already spread. */
const RECONNECT_JITTER = 0.2;

/**
 * Keeps one watch open: reconnects with exponential backoff and full jitter, replaces dead connections, and polls
 * where streams do not get through.
 */
export class WatchLoop<Stock extends WatchedStock> {
  readonly #options: WatchLoopOptions<Stock>;
  #ids: readonly string[] = [];
  #covered = new Set<string>();
  #state: ConnectionState | undefined;
  /** Ends the current stream, or the delay before the next. */
  #attempt = new AbortController();
  #ended = new AbortController();
  #polling: AbortController | undefined;
  /** Whether the last poll succeeded. */
  #pollWorks = false;
  #grace: ReturnType<typeof setTimeout> | undefined;
  #lastMessageMs = 0;
  #isRunning = false;

  constructor(options: WatchLoopOptions<Stock>) {
    this.#options = options;
  }

  /** Watches up to 1,000 products. A stream that covers them already is kept. An empty list ends the watch. */
  watch(ids: readonly string[]): void {
    this.#ids = ids;
    const isCovered = ids.length > 0 && ids.every((id) => this.#covered.has(id));
    if (this.#isRunning && !isCovered) this.#attempt.abort();
    else if (!this.#isRunning && ids.length > 0) void this.#run();
  }

  /** Replaces a stream without a recent message, and skips the delay before the next: the network may be available. */
  retryNow(): void {
    const isFresh =
      this.#state === "live" && Date.now() - this.#lastMessageMs < 1.5 * this.#options.heartbeatMs;
    if (!isFresh) this.#attempt.abort();
  }

  /** The browser reports that the network is unavailable. */
  onOffline(): void {
    this.#setState("reconnecting");
    this.#attempt.abort();
  }

  end(): void {
    this.#ended.abort();
    this.#attempt.abort();
    this.#stopPolling();
    clearTimeout(this.#grace);
  }

  async #run(): Promise<void> {
    this.#isRunning = true;
    let failures = 0;
    while (!this.#ended.signal.aborted && this.#ids.length > 0) {
      this.#attempt = new AbortController();
      const { signal } = this.#attempt;
      const { hasMessages, isBuffered, reconnectAfterMs } = await this.#stream(signal);
      if (this.#ended.signal.aborted) break;
      if (signal.aborted) {
        failures = 0;
        if (!this.#pollWorks) this.#setState("reconnecting", GRACE_MS);
        continue;
      }
      failures = hasMessages ? 0 : failures + 1;
      if (isBuffered || failures >= FAILURES_BEFORE_POLL) this.#startPolling();
      const isPlanned = reconnectAfterMs !== undefined;
      if (!this.#pollWorks) this.#setState("reconnecting", isPlanned ? GRACE_MS : 0);
      await sleep(this.#delayMs(failures, reconnectAfterMs), signal);
    }
    this.#isRunning = false;
    this.#covered.clear();
    this.#stopPolling();
  }

  #delayMs(failures: number, reconnectAfterMs: number | undefined): number {
    if (reconnectAfterMs !== undefined) return reconnectAfterMs * (1 + Math.random() * RECONNECT_JITTER);
    if (this.#pollWorks) return STREAM_RETRY_MS * (0.5 + Math.random());
    return backoffMs(failures, RETRY);
  }

  /** Reads one stream to its end. Never rejects. `isBuffered`: it timed out before its first message. */
  async #stream(
    attempt: AbortSignal,
  ): Promise<{ hasMessages: boolean; isBuffered: boolean; reconnectAfterMs: number | undefined }> {
    const { open, onMessage, heartbeatMs } = this.#options;
    const timedOut = new AbortController();
    const ids = this.#ids;
    this.#covered = new Set(ids);
    let hasMessages = false;
    let isBuffered = false;
    let reconnectAfterMs: number | undefined;
    const onTimeout = (): void => {
      isBuffered = !hasMessages;
      timedOut.abort();
    };
    let watchdog = setTimeout(onTimeout, FIRST_MESSAGE_MS_MAX);
    try {
      for await (const message of open(ids, AbortSignal.any([attempt, timedOut.signal]))) {
        if (attempt.aborted) break;
        clearTimeout(watchdog);
        watchdog = setTimeout(onTimeout, WATCHDOG_BEATS * heartbeatMs);
        hasMessages = true;
        this.#lastMessageMs = Date.now();
        reconnectAfterMs = message.reconnectAfterMs;
        this.#stopPolling();
        this.#setState("live");
        onMessage(message);
        if (reconnectAfterMs !== undefined) break;
      }
    } catch {
      // The kind of error does not matter: the next step depends on the messages only.
    } finally {
      clearTimeout(watchdog);
      timedOut.abort();
    }
    return { hasMessages, isBuffered, reconnectAfterMs };
  }

  #startPolling(): void {
    if (this.#polling !== undefined) return;
    this.#polling = new AbortController();
    void this.#pollUntil(this.#polling.signal);
  }

  #stopPolling(): void {
    this.#polling?.abort();
    this.#polling = undefined;
    this.#pollWorks = false;
  }

  async #pollUntil(stopped: AbortSignal): Promise<void> {
    while (!stopped.aborted) {
      try {
        const limit = AbortSignal.timeout(POLL_MS_MAX);
        const message = await this.#options.poll(this.#ids, AbortSignal.any([stopped, limit]));
        if (stopped.aborted) return;
        if (!this.#pollWorks) {
          this.#pollWorks = true;
          // The server is reachable, so a stream may get through too. Polling is reported only if it does not.
          this.#attempt.abort();
          this.#setState("polling", GRACE_MS);
        }
        this.#options.onMessage(message);
      } catch {
        if (!stopped.aborted && this.#pollWorks) {
          this.#pollWorks = false;
          this.#setState("reconnecting");
          // End the long delay that applies while polling works.
          this.#attempt.abort();
        }
      }
      await sleep(POLL_INTERVAL_MS * (0.75 + Math.random() / 2), stopped);
    }
  }

  #setState(state: ConnectionState, graceMs = 0): void {
    const isOffline = state === "reconnecting" && navigator.onLine === false;
    const next = isOffline ? "offline" : state;
    clearTimeout(this.#grace);
    if (next === this.#state) return;
    const report = (): void => {
      this.#state = next;
      this.#options.onState(next);
    };
    if (graceMs > 0 && !isOffline) this.#grace = setTimeout(report, graceMs);
    else report();
  }
}
