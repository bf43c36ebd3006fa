import type { LinkState } from "../live/watch-loop.ts";
import type { WatchMessage } from "../live/watch-message.ts";
import type { Product } from "../view/product.ts";

/** What the tabs of one origin tell each other. */
export type TabMessage =
  /** The tab that leads has begun, or wants to know who is still there. */
  | { readonly kind: "roll-call" }
  | {
      readonly kind: "wants";
      readonly tab: string;
      readonly ids: readonly string[];
      readonly isVisible: boolean;
    }
  | { readonly kind: "bye"; readonly tab: string }
  | { readonly kind: "state"; readonly state: LinkState; readonly isLeaderVisible: boolean }
  | { readonly kind: "news"; readonly message: WatchMessage<Product> };

const CHANNEL = "inventory-watch";
/** A watch has no room for more. */
export const WATCHED_MAX = 1_000;

/** What one tab shows. */
export interface Wants {
  readonly ids: readonly string[];
  readonly isVisible: boolean;
  readonly atMs: number;
}

/** The products of all tabs, those of visible tabs first, and no more than a watch may name. */
export function unionOf(wants: Iterable<Wants>): string[] {
  const byNeed = [...wants].sort((a, b) => Number(b.isVisible) - Number(a.isVisible) || b.atMs - a.atMs);
  return [...new Set(byNeed.flatMap(({ ids }) => ids))].slice(0, WATCHED_MAX);
}

/** The other tabs of this origin; a page by itself where the browser knows no channels. */
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
