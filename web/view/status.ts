import { icon } from "./icons.ts";
import type { Markup } from "./markup.ts";

/** How the page receives counts. `snapshot`: the HTML of the server, before or without the script. */
export type Connection = "snapshot" | "live" | "reconnecting" | "polling" | "offline" | "paused";

export interface Status {
  readonly connection: Connection;
  /** The server's store is unavailable: it sends the last known counts. */
  readonly isStale: boolean;
  /** When the counts were last known to be current, such as "12:03:05". Empty if that is unknown. */
  readonly asOf: string;
  /** How old they are, such as "3 minutes old". Empty below a minute. */
  readonly age: string;
}

const WORDS: Readonly<Record<Connection, string>> = {
  snapshot: "Counts",
  live: "Live",
  reconnecting: "Reconnecting",
  polling: "Polling",
  offline: "Offline",
  paused: "Paused",
};

/** Connections that provide the server's current counts. */
const CONNECTED: ReadonlySet<Connection> = new Set(["snapshot", "live", "polling"]);

/** Whether the server can be reached, as far as the page knows. A pause does not end that. */
export function isConnected({ connection }: Status): boolean {
  return CONNECTED.has(connection) || connection === "paused";
}

/** Whether the counts shown are current. */
export function isCurrent({ connection, isStale }: Status): boolean {
  return !isStale && CONNECTED.has(connection);
}

export function statusWord({ connection, isStale, asOf }: Status): string {
  if (!isStale || !CONNECTED.has(connection)) return WORDS[connection];
  return asOf === "" ? "No counts yet" : "Last known counts";
}

/** The status, always visible: an icon, a word, and the time of the counts if they are not live. */
export function statusView(markup: Markup, status: Status, onPause: (() => void) | undefined): unknown {
  const { html, nothing } = markup;
  const { connection, isStale, asOf } = status;
  const isOld = isStale && CONNECTED.has(connection);
  const age = status.age && `, ${status.age}`;
  const asOfText = (connection !== "live" || isStale) && asOf !== "" ? ` as of ${asOf}${age}` : "";
  const isPaused = connection === "paused";
  return html`<section
    class="status"
    aria-label="Connection"
    data-connection="${connection}"
    data-stale="${isStale ? "yes" : "no"}"
  >
    <p class="status-text">
      ${icon(markup, isOld ? "stale" : connection)}<span class="status-words"
        ><span class="status-word">${statusWord(status)}</span><span class="status-age">${asOfText}</span></span
      >
    </p>
    <button type="button" class="quiet pause" ?hidden=${onPause === undefined} @click=${onPause ?? nothing}>
      ${icon(markup, isPaused ? "play" : "paused")}<span>${isPaused ? "Resume" : "Pause"}<span class="pause-rest"> live updates</span></span>
    </button>
  </section>`;
}
