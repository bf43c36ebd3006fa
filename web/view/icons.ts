import type { Markup } from "./markup.ts";

/** Strokes on a grid of 16 by 16. */
const PATHS = {
  some: "M3.5 8.5l3 3 6-7",
  low: "M8 2.5v7M8 12.8v.2",
  none: "M4 4l8 8M12 4l-8 8",
  back: "M13 8A5 5 0 1 1 8 3h3.5M9 .8L11.5 3 9 5.2",
  removed: "M3.5 8h9",
  live: "M8 8h.01M4.6 11.4a4.8 4.8 0 0 1 0-6.8M11.4 4.6a4.8 4.8 0 0 1 0 6.8M2.3 13.7a8 8 0 0 1 0-11.4M13.7 2.3a8 8 0 0 1 0 11.4",
  reconnecting: "M13 8A5 5 0 1 1 8 3h3.5M9 .8L11.5 3 9 5.2",
  polling: "M8 4.2V8l2.6 1.6M14 8A6 6 0 1 1 2 8a6 6 0 0 1 12 0",
  offline: "M2.5 2.5l11 11M5.2 10.8a4 4 0 0 1 1.4-2M3 7.6a8 8 0 0 1 2-1.4M8 3.8c2 0 3.9.8 5.2 2.2M8 13h.01",
  paused: "M5.5 3.5v9M10.5 3.5v9",
  stale: "M8 2l6.3 11.5H1.7zM8 6.5v3M8 11.7v.1",
  snapshot: "M8 4.2V8l2.6 1.6M14 8A6 6 0 1 1 2 8a6 6 0 0 1 12 0",
  search: "M7 12A5 5 0 1 0 7 2a5 5 0 0 0 0 10zM10.7 10.7L14 14",
  play: "M5 3.5l7.5 4.5L5 12.5z",
} as const;
export type IconName = keyof typeof PATHS;

/** An icon, hidden from screen readers: there is always text next to it. */
export function icon({ html }: Markup, name: IconName): unknown {
  return html`<svg class="icon" viewBox="0 0 16 16" aria-hidden="true" focusable="false"><path d="${PATHS[name]}" /></svg>`;
}
