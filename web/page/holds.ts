import { type HoldActions, type HoldModel, type HoldState, holdView, secondsLeft } from "../view/hold.ts";
import type { Markup } from "../view/markup.ts";

declare global {
  /** Set by the demo's script. */
  var demoHolds: Holds | undefined;
}

const REQUEST_MS_MAX = 8_000;
const TICK_MS = 1_000;
/** Seconds left at which screen readers are reminded. */
const REMINDER_SECONDS = 15;
/** Holds survive a reload of their tab. */
const STORAGE_KEY = "demo-holds";

const NO_ANSWER = "No answer. Try again.";

interface Stored {
  readonly id: string;
  readonly untilMs: number;
}

interface HoldsOptions {
  /** A state has changed, or a second has passed. */
  readonly onChange: () => void;
  readonly announce: (productId: string, text: string) => void;
}

/** The units that this tab holds in the demo. Each request is safe to repeat, because the tab chooses the ID. */
export class Holds implements HoldActions {
  readonly #states = new Map<string, HoldState>();
  /** By product: the ID of the reservation, also of one whose request had no response. */
  readonly #ids = new Map<string, string>();
  #options: HoldsOptions | undefined;
  #timer: ReturnType<typeof setInterval> | undefined;

  constructor() {
    for (const [productId, { id, untilMs }] of Object.entries(readStored())) {
      this.#ids.set(productId, id);
      this.#states.set(productId, { step: "held", untilMs, isEnding: false, problem: "" });
    }
  }

  /** The page is ready to be drawn. */
  start(options: HoldsOptions): void {
    this.#options = options;
    this.#tick();
  }

  readonly view = (markup: Markup, model: HoldModel): unknown =>
    holdView(markup, model, this.#states.get(model.productId), this);

  onReserve = async (productId: string): Promise<void> => {
    const id = this.#ids.get(productId) ?? randomId();
    this.#ids.set(productId, id);
    this.#set(productId, { step: "reserving" });
    // The hold begins after this, so the deadline shown is never later than the real one.
    const sentMs = Date.now();
    const { status, body } = await send("reserve", { reservationId: id, productId });
    if (status === 200) {
      const untilMs = sentMs + Number(body["expiresInMs"]);
      this.#set(productId, { step: "held", untilMs, isEnding: false, problem: "" });
      this.#options?.announce(productId, `1 held for you for ${secondsLeft(untilMs, Date.now())} seconds`);
    } else if (status === 0 || status === 503) this.#end(productId, NO_ANSWER, id);
    else if (status === 409) this.#end(productId, "Sold out before it was reserved");
    else if (status === 429) this.#end(productId, `Too many reservations. Wait ${body["retryAfter"]} s.`);
    else this.#end(productId, "The shop refused the reservation");
  };

  onBuy = (productId: string): Promise<void> => this.#finish(productId, "commit", "You bought 1");

  onRelease = (productId: string): Promise<void> => this.#finish(productId, "release", "Released");

  async #finish(productId: string, action: string, done: string): Promise<void> {
    const hold = this.#states.get(productId);
    const reservationId = this.#ids.get(productId);
    if (hold?.step !== "held" || hold.isEnding || reservationId === undefined) return;
    this.#set(productId, { ...hold, isEnding: true });
    const { status } = await send(action, { reservationId });
    if (status === 200) this.#end(productId, done);
    else if (status === 410) this.#end(productId, "The reservation has expired");
    // While the response was awaited, the time may have run out.
    else if (this.#states.get(productId)?.step === "held") {
      this.#set(productId, { ...hold, isEnding: false, problem: NO_ANSWER });
      this.#options?.announce(productId, NO_ANSWER);
    }
  }

  /** `id` is kept for the next attempt. */
  #end(productId: string, text: string, id?: string): void {
    if (id === undefined) this.#ids.delete(productId);
    this.#set(productId, { step: "ended", text });
    this.#options?.announce(productId, text);
  }

  #set(productId: string, state: HoldState): void {
    this.#states.set(productId, state);
    this.#store();
    this.#options?.onChange();
  }

  #store(): void {
    const held = [...this.#states].flatMap(([productId, state]) => {
      const id = this.#ids.get(productId);
      return state.step === "held" && id ? [[productId, { id, untilMs: state.untilMs }]] : [];
    });
    try {
      sessionStorage.setItem(STORAGE_KEY, JSON.stringify(Object.fromEntries(held)));
    } catch {
      // The browser stores nothing for this site: a reload forgets the holds, and they expire.
    }
    clearInterval(this.#timer);
    if (held.length > 0) this.#timer = setInterval(() => this.#tick(), TICK_MS);
  }

  #tick(): void {
    for (const [productId, state] of this.#states) {
      if (state.step !== "held") continue;
      const seconds = secondsLeft(state.untilMs, Date.now());
      if (seconds === REMINDER_SECONDS) {
        this.#options?.announce(productId, `held for ${seconds} more seconds`);
      }
      if (seconds > 0) continue;
      const isUnknown = state.isEnding || state.problem !== "";
      this.#end(
        productId,
        isUnknown ? "Expired without an answer: it may have been bought" : "Expired: the unit is free again",
      );
    }
    this.#store();
    this.#options?.onChange();
  }
}

function readStored(): Readonly<Record<string, Stored>> {
  try {
    return JSON.parse(sessionStorage.getItem(STORAGE_KEY) ?? "{}") as Record<string, Stored>;
  } catch {
    return {};
  }
}

/** 128 random bits. `crypto.randomUUID` exists on HTTPS and on this machine only. */
function randomId(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Status 0: there was no response. */
async function send(
  action: string,
  request: object,
): Promise<{ status: number; body: Readonly<Record<string, unknown>> }> {
  try {
    const response = await fetch(`/demo/${action}`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(request),
      signal: AbortSignal.timeout(REQUEST_MS_MAX),
    });
    const body = (await response.json()) as Record<string, unknown>;
    return { status: response.status, body: { ...body, retryAfter: response.headers.get("retry-after") } };
  } catch {
    return { status: 0, body: {} };
  }
}
