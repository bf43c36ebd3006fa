import { backoffMs, rest } from "./backoff.ts";
import type { WatchedStock, WatchMessage } from "./watch-message.ts";

export type LinkState = "live" | "reconnecting" | "polling" | "offline";

export interface WatchLoopOptions<Stock extends WatchedStock> {
  /** Opens a stream; ends with the signal. Never called without an ID, which would ask for every product. */
  readonly open: (ids: readonly string[], signal: AbortSignal) => AsyncIterable<WatchMessage<Stock>>;
  /** Asks once, where no stream gets through. */
  readonly poll: (ids: readonly string[], signal: AbortSignal) => Promise<WatchMessage<Stock>>;
  readonly onMessage: (message: WatchMessage<Stock>) => void;
  readonly onState: (state: LinkState) => void;
  readonly heartbeatMs: number;
}

const RETRY = { firstMs: 500, mostMs: 10_000 };
/** A stream that says nothing for this long does not get through: its snapshot comes at once. */
const FIRST_MESSAGE_MS_MAX = 5_000;
/** In heartbeats: a connection that died silently is given up after this. */
const SILENT_BEATS_MAX = 2.5;
const POLL_INTERVAL_MS = 5_000;
const POLL_MS_MAX = 8_000;
/** How often a stream is tried while polling works. */
const STREAM_RETRY_MS = 30_000;
/** A change of what is watched, or a server that says goodbye, is no news unless it takes longer than this. */
const GRACE_MS = 1_000;
/** So many streams must fail before their first message until polling is tried. */
const FAILURES_BEFORE_POLL = 2;
/** The server spreads its goodbyes already; with what it asks for (1.5 s at most) a reader is back within 3 s. */
const GOODBYE_JITTER = 0.2;

/**
 * Keeps one watch open as long as it is wanted: reconnects with full jitter, gives up connections that fall silent,
 * polls where streams do not get through, and tries at once when `nudge` says that things may have changed.
 */
export class WatchLoop<Stock extends WatchedStock> {
  readonly #options: WatchLoopOptions<Stock>;
  #ids: readonly string[] = [];
  #covered = new Set<string>();
  #state: LinkState | undefined;
  /** Fires to end the attempt, or the rest between two, that is under way. */
  #turn = new AbortController();
  #ended = new AbortController();
  #polling: AbortController | undefined;
  /** The last poll was answered. */
  #pollWorks = false;
  #grace: ReturnType<typeof setTimeout> | undefined;
  #lastHeardMs = 0;
  #isRunning = false;

  constructor(options: WatchLoopOptions<Stock>) {
    this.#options = options;
  }

  /** Watches these products, at most 1,000. A stream that covers them already is left as it is; none ends it. */
  watch(ids: readonly string[]): void {
    this.#ids = ids;
    const isCovered = ids.length > 0 && ids.every((id) => this.#covered.has(id));
    if (this.#isRunning && !isCovered) this.#turn.abort();
    else if (!this.#isRunning && ids.length > 0) void this.#run();
  }

  /** The network, or the reader, is back: a stream that was not heard lately is replaced, a rest is cut short. */
  nudge(): void {
    const isFresh =
      this.#state === "live" && Date.now() - this.#lastHeardMs < 1.5 * this.#options.heartbeatMs;
    if (!isFresh) this.#turn.abort();
  }

  /** The network is gone, says the browser. */
  lost(): void {
    this.#say("reconnecting");
    this.#turn.abort();
  }

  end(): void {
    this.#ended.abort();
    this.#turn.abort();
    this.#stopPolling();
    clearTimeout(this.#grace);
  }

  async #run(): Promise<void> {
    this.#isRunning = true;
    let failures = 0;
    while (!this.#ended.signal.aborted && this.#ids.length > 0) {
      this.#turn = new AbortController();
      const { signal } = this.#turn;
      const { heard, silent, reconnectAfterMs } = await this.#stream(signal);
      if (this.#ended.signal.aborted) break;
      if (signal.aborted) {
        failures = 0;
        if (!this.#pollWorks) this.#say("reconnecting", GRACE_MS);
        continue;
      }
      failures = heard ? 0 : failures + 1;
      if (silent || failures >= FAILURES_BEFORE_POLL) this.#startPolling();
      const isGoodbye = reconnectAfterMs !== undefined;
      if (!this.#pollWorks) this.#say("reconnecting", isGoodbye ? GRACE_MS : 0);
      await rest(this.#pauseMs(failures, reconnectAfterMs), signal);
    }
    this.#isRunning = false;
    this.#covered.clear();
    this.#stopPolling();
  }

  #pauseMs(failures: number, reconnectAfterMs: number | undefined): number {
    if (reconnectAfterMs !== undefined) return reconnectAfterMs * (1 + Math.random() * GOODBYE_JITTER);
    if (this.#pollWorks) return STREAM_RETRY_MS * (0.5 + Math.random());
    return backoffMs(failures, RETRY);
  }

  /** One stream from its opening to its end, whatever that is. Never rejects. */
  async #stream(
    turn: AbortSignal,
  ): Promise<{ heard: boolean; silent: boolean; reconnectAfterMs: number | undefined }> {
    const { open, onMessage, heartbeatMs } = this.#options;
    const cut = new AbortController();
    const ids = this.#ids;
    this.#covered = new Set(ids);
    let heard = false;
    let silent = false;
    let reconnectAfterMs: number | undefined;
    const giveUp = (): void => {
      silent = !heard;
      cut.abort();
    };
    let watchdog = setTimeout(giveUp, FIRST_MESSAGE_MS_MAX);
    try {
      for await (const message of open(ids, AbortSignal.any([turn, cut.signal]))) {
        if (turn.aborted) break;
        clearTimeout(watchdog);
        watchdog = setTimeout(giveUp, SILENT_BEATS_MAX * heartbeatMs);
        heard = true;
        this.#lastHeardMs = Date.now();
        reconnectAfterMs = message.reconnectAfterMs;
        this.#stopPolling();
        this.#say("live");
        onMessage(message);
        if (reconnectAfterMs !== undefined) break;
      }
    } catch {
      // A lost connection, a refusal, an end that was asked for: what comes next depends on what was heard alone.
    } finally {
      clearTimeout(watchdog);
      cut.abort();
    }
    return { heard, silent, reconnectAfterMs };
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
          // The server can be reached: perhaps a stream gets through as well, and nobody need hear of polling.
          this.#turn.abort();
          this.#say("polling", GRACE_MS);
        }
        this.#options.onMessage(message);
      } catch {
        if (!stopped.aborted && this.#pollWorks) {
          this.#pollWorks = false;
          this.#say("reconnecting");
          // The loop rests long while polling works; now it is to try soon again.
          this.#turn.abort();
        }
      }
      await rest(POLL_INTERVAL_MS * (0.75 + Math.random() / 2), stopped);
    }
  }

  #say(state: LinkState, graceMs = 0): void {
    const isLost = state === "reconnecting" && navigator.onLine === false;
    const next = isLost ? "offline" : state;
    clearTimeout(this.#grace);
    if (next === this.#state) return;
    const say = (): void => {
      this.#state = next;
      this.#options.onState(next);
    };
    if (graceMs > 0 && !isLost) this.#grace = setTimeout(say, graceMs);
    else say();
  }
}
