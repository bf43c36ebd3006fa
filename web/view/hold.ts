import type { Markup } from "./markup.ts";

/** What became of this visitor's reservation of one unit of a product. Absent: nothing was reserved. */
export type HoldState =
  | { readonly step: "reserving" }
  | {
      readonly step: "held";
      readonly untilMs: number;
      /** A purchase or a release was sent, and the response is awaited. */
      readonly isEnding: boolean;
      /** Why the last request failed. Empty: none did. */
      readonly problem: string;
    }
  | { readonly step: "ended"; readonly text: string };

/** In the demo: what a visitor may do with one unit. */
export interface HoldActions {
  readonly onReserve: (productId: string) => void;
  readonly onBuy: (productId: string) => void;
  readonly onRelease: (productId: string) => void;
}

export interface HoldModel {
  readonly productId: string;
  readonly name: string;
  readonly available: number;
  readonly isConnected: boolean;
  readonly nowMs: number;
}

/** How long a unit is held, s. */
const HOLD_SECONDS = 60;

/** "Reserve 1", then the deadline with "Buy" and "Release". Two lines in every state, so that nothing moves. */
export function holdView(
  markup: Markup,
  model: HoldModel,
  hold: HoldState | undefined,
  actions: HoldActions | undefined,
): unknown {
  const { html, nothing } = markup;
  const { productId, nowMs } = model;
  // A busy button keeps the focus, which a disabled one loses.
  const button = (
    text: string,
    style: string,
    isBusy: boolean,
    isDisabled: boolean,
    action: keyof HoldActions,
  ) =>
    html`<button
      type="button"
      class="${style}"
      aria-disabled="${isBusy ? "true" : "false"}"
      ?disabled=${isDisabled || actions === undefined}
      @click=${isBusy || !actions ? nothing : () => actions[action](productId)}
    >
      ${text}<span class="unseen"> ${model.name}</span>
    </button>`;
  if (hold?.step === "held") {
    const { untilMs, isEnding, problem } = hold;
    const seconds = secondsLeft(untilMs, nowMs);
    return html`<div class="hold" data-step="held">
      <p class="hold-text">
        <span>${problem || "Held for you"}</span><span class="hold-time" role="timer">${clockText(seconds)}</span>
      </p>
      <div class="hold-buttons">
        ${button("Buy", "solid", isEnding, false, "onBuy")} ${button("Release", "outlined", isEnding, false, "onRelease")}
      </div>
      <progress class="hold-rest" max="${HOLD_SECONDS}" value="${seconds}" aria-hidden="true"></progress>
    </div>`;
  }
  const isReserving = hold?.step === "reserving";
  const isImpossible = !isReserving && (!model.isConnected || model.available === 0);
  return html`<div class="hold" data-step="${hold?.step ?? "none"}">
    <p class="hold-text">${reserveText(model, hold)}</p>
    <div class="hold-buttons">${button("Reserve 1", "outlined", isReserving, isImpossible, "onReserve")}</div>
  </div>`;
}

function reserveText({ available, isConnected }: HoldModel, hold: HoldState | undefined): string {
  if (hold?.step === "reserving") return "Reserving";
  if (!isConnected) return "No connection: nothing can be reserved now";
  if (hold?.step === "ended") return hold.text;
  return available === 0 ? "Sold out: no unit to reserve" : `Holds one unit for ${HOLD_SECONDS} seconds`;
}

/** Whole seconds, rounded up, so that 0 means that the time is over. */
export function secondsLeft(untilMs: number, nowMs: number): number {
  return Math.max(0, Math.ceil((untilMs - nowMs) / 1_000));
}

function clockText(seconds: number): string {
  return `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;
}
