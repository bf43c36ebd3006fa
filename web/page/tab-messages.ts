import type { ConnectionState } from "../live/watch-loop.ts";
import { WATCHED_MAX, type WatchMessage } from "../live/watch-message.ts";
import type { Product } from "../view/product.ts";

/** Messages between the tabs of one origin. */
export type TabMessage =
  /** From the leader: every tab sends its subscription again. */
  | { readonly kind: "resubscribe" }
  | {
      readonly kind: "subscribe";
      readonly tab: string;
      readonly ids: readonly string[];
      readonly isVisible: boolean;
    }
  | { readonly kind: "unsubscribe"; readonly tab: string }
  | { readonly kind: "state"; readonly state: ConnectionState; readonly isLeaderVisible: boolean }
  | { readonly kind: "update"; readonly message: WatchMessage<Product> };

const CHANNEL = "inventory-watch";

/** The products that one tab shows. */
export interface TabSubscription {
  readonly ids: readonly string[];
  readonly isVisible: boolean;
  readonly atMs: number;
}

/** The products of all tabs, those of visible tabs first, limited to what a watch may name. */
export function unionOf(subscriptions: Iterable<TabSubscription>): string[] {
  const byPriority = [...subscriptions].sort(
    (a, b) => Number(b.isVisible) - Number(a.isVisible) || b.atMs - a.atMs,
  );
  return [...new Set(byPriority.flatMap(({ ids }) => ids))].slice(0, WATCHED_MAX);
}

/** Connects the tabs of this origin. Does nothing in a browser without BroadcastChannel. */
export class TabChannel {
  readonly #channel = typeof BroadcastChannel === "undefined" ? undefined : new BroadcastChannel(CHANNEL);

  constructor(onMessage: (message: TabMessage) => void) {
    this.#channel?.addEventListener("message", ({ data }: MessageEvent<TabMessage>) => onMessage(data));
  }

  post(message: TabMessage): void {
    this.#channel?.postMessage(message);
  }

  close(): void {
    this.#channel?.close();
  }
}
