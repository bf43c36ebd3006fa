import type { InventoryErrorCode } from "../../server/inventory/errors.ts";
import type { Line } from "../../server/inventory/reservation.ts";
import { type Call, ledgerText, type Result, refusalText, reservationText, stockText } from "./calls.ts";

// The specification of the rules of stock: one function from a state and a call to the next state and
// the result. It shares no code with the stores, and models no more than the checks need: no times, no
// change records, no retention.

/** Events without a call: a deadline passes, and later a sweep returns the units to stock. */
export type Happening = { readonly kind: "lapse" | "sweep"; readonly reservationId: string };

interface Product {
  readonly declared: number;
  readonly declaredAt: number;
  readonly adjusted: number;
  readonly sold: number;
  readonly reserved: number;
  readonly safety: number;
  readonly version: number;
  readonly upsertAt: number;
  readonly deleteAt: number;
}

interface Held {
  /** "due" is past its deadline and not yet swept; stores report it as active. */
  readonly state: "active" | "due" | "committed" | "released" | "expired";
  readonly lines: readonly Line[];
  readonly sold: readonly number[];
  readonly left: readonly number[];
  readonly revived: boolean;
}

export interface State {
  readonly products: ReadonlyMap<string, Product>;
  readonly reservations: ReadonlyMap<string, Held>;
  /** The content of each operation, by kind and ID. */
  readonly done: ReadonlyMap<string, string>;
}

export interface Step {
  /** The same object if the call changes nothing. */
  readonly state: State;
  readonly result: Result;
}

const NEVER = -1;
const QUANTITY_MAX = 2_147_483_647;

export const nothing: State = { products: new Map(), reservations: new Map(), done: new Map() };

export function step(state: State, call: Call | Happening): Step {
  switch (call.kind) {
    case "put":
    case "delete":
      return productEvent(state, call);
    case "count":
    case "adjust":
      return correction(state, call);
    case "safety":
    case "stock":
    case "ledger":
      return onProduct(state, call);
    case "reserve":
      return reserve(state, call);
    case "lapse":
    case "sweep":
      return happen(state, call);
    default:
      return onReservation(state, call);
  }
}

/** Whether a reservation is past its deadline and not yet swept. */
export function isDue(state: State, reservationId: string): boolean {
  return state.reservations.get(reservationId)?.state === "due";
}

/**
 * The progress of a product or a reservation: a number that never decreases. The version of a product;
 * for a reservation 0 unknown, 1 active, 2 expired, 3 committed or released.
 */
export function progressOf(state: State, call: Call | Happening): number {
  if ("productId" in call) {
    return state.products.get(call.productId)?.version ?? 0;
  }
  return stageOf(state.reservations.get(call.reservationId)?.state);
}

/** The progress at the time of a result, if the result shows it. */
export function progressTold(call: Call, result: Result): number | undefined {
  const { version, state, code } = JSON.parse(result) as Partial<Record<string, number & string>>;
  if ("productId" in call) {
    return version;
  }
  return state === undefined && code !== "RESERVATION_UNKNOWN" ? undefined : stageOf(state);
}

function stageOf(state: string | undefined): number {
  return state === undefined ? 0 : state === "active" || state === "due" ? 1 : state === "expired" ? 2 : 3;
}

function productEvent(state: State, call: Call & { kind: "put" | "delete" }): Step {
  const { productId, micros } = call;
  const known = state.products.get(productId);
  const old = known ?? {
    ...{ declared: 0, declaredAt: NEVER, adjusted: 0, sold: 0, reserved: 0, safety: 0, version: 0 },
    ...{ upsertAt: NEVER, deleteAt: NEVER },
  };
  if (call.kind === "delete") {
    const applied = micros >= old.upsertAt && micros >= old.deleteAt;
    const next = { ...old, deleteAt: Math.max(old.deleteAt, micros) };
    const visible = known === undefined || (!isDeleted(old) && isDeleted(next));
    return putProduct(state, productId, known, next, visible, applied);
  }
  const says = call.declared !== undefined && micros >= old.declaredAt;
  const declared = micros === old.declaredAt ? Math.min(old.declared, call.declared ?? 0) : call.declared;
  const next = {
    ...old,
    declared: says ? (declared ?? 0) : old.declared,
    declaredAt: says ? micros : old.declaredAt,
    upsertAt: Math.max(old.upsertAt, micros),
  };
  const applied = (says || (call.declared === undefined && micros >= old.upsertAt)) && !isDeleted(next);
  const visible =
    (isDeleted(old) && !isDeleted(next)) ||
    next.declared !== old.declared ||
    next.declaredAt !== old.declaredAt;
  return putProduct(state, productId, known, next, visible, applied);
}

function putProduct(
  state: State,
  productId: string,
  old: Product | undefined,
  next: Product,
  visible: boolean,
  applied: boolean,
): Step {
  const product = visible ? { ...next, version: next.version + 1 } : next;
  const same = old !== undefined && textOf(old) === textOf(product);
  const result = ledgerText({ ...product, deleted: isDeleted(product) }, applied);
  return { state: same ? state : withProduct(state, productId, product), result };
}

function correction(state: State, call: Call & { kind: "count" | "adjust" }): Step {
  const product = state.products.get(call.productId);
  const { kind, ...content } = call;
  const id = kind === "count" ? call.countId : call.adjustmentId;
  const key = `${kind} ${JSON.stringify([call.productId, id])}`;
  const requested = JSON.stringify(content);
  const before = state.done.get(key);
  if (before !== undefined) {
    return before === requested && product !== undefined
      ? unchanged(state, product)
      : refuse(state, "ID_REUSED");
  }
  if (product === undefined || isDeleted(product)) {
    return refuse(state, "PRODUCT_UNKNOWN");
  }
  const { expectedVersion } = call.kind === "count" ? call : { expectedVersion: undefined };
  if (expectedVersion !== undefined && expectedVersion !== product.version) {
    return refuse(state, "VERSION_MISMATCH");
  }
  const delta = call.kind === "count" ? call.count - onHand(product) : call.delta;
  const after = onHand(product) + delta;
  if (call.kind === "adjust" && (delta < 0 ? after < 0 : after > QUANTITY_MAX)) {
    return refuse(state, "STOCK_OUT_OF_RANGE");
  }
  const next =
    delta === 0 ? product : { ...product, adjusted: product.adjusted + delta, version: product.version + 1 };
  const done = new Map(state.done).set(key, requested);
  return unchanged({ ...withProduct(state, call.productId, next), done }, next);
}

function onProduct(state: State, call: Extract<Call, { kind: "safety" | "stock" | "ledger" }>): Step {
  const product = state.products.get(call.productId);
  if (product === undefined || (isDeleted(product) && call.kind !== "ledger")) {
    return refuse(state, "PRODUCT_UNKNOWN");
  }
  if (call.kind === "stock") {
    return { state, result: stockText({ available: available(product), version: product.version }) };
  }
  if (call.kind !== "safety" || call.safety === product.safety) {
    return unchanged(state, product);
  }
  const next = { ...product, safety: call.safety, version: product.version + 1 };
  return unchanged(withProduct(state, call.productId, next), next);
}

function reserve(state: State, call: Call & { kind: "reserve" }): Step {
  const { reservationId, lines } = call;
  const known = state.reservations.get(reservationId);
  if (known !== undefined) {
    if (known.lines.length === 0) {
      return refuse(state, "RESERVATION_ENDED");
    }
    return sorted(known.lines) === sorted(lines) ? respond(state, known) : refuse(state, "ID_REUSED");
  }
  const short: [string, number, number][] = [];
  for (const { productId, quantity } of lines) {
    const product = state.products.get(productId);
    if (product === undefined || isDeleted(product)) {
      return refuse(state, "PRODUCT_UNKNOWN");
    }
    if (available(product) < quantity) {
      short.push([productId, quantity, available(product)]);
    }
  }
  if (short.length > 0) {
    return { state, result: refusalText({ code: "STOCK_SHORT", short }) };
  }
  const held: Held = { state: "active", lines, sold: [], left: [], revived: false };
  const next = moved(state, lines, (_, { quantity }) => ({ held: quantity, sold: 0 }));
  return respond(withReservation(next, reservationId, held), held);
}

function onReservation(
  state: State,
  call: Call & { kind: "commit" | "release" | "get" | "extend" | "return" },
): Step {
  const { reservationId } = call;
  const held = state.reservations.get(reservationId);
  if (held === undefined) {
    if (call.kind !== "release") {
      return refuse(state, "RESERVATION_UNKNOWN");
    }
    const tombstone: Held = { state: "released", lines: [], sold: [], left: [], revived: false };
    return respond(withReservation(state, reservationId, tombstone), tombstone);
  }
  switch (call.kind) {
    case "get":
      return respond(state, held);
    case "extend":
      // The model has no deadlines, so nothing visible changes.
      return held.state === "active" ? respond(state, held) : refuse(state, "RESERVATION_ENDED");
    case "release": {
      if (held.state === "committed") {
        return refuse(state, "RESERVATION_ENDED");
      }
      if (held.state === "released") {
        return respond(state, held);
      }
      const released: Held = { ...held, state: "released" };
      return respond(
        withReservation(isHeld(held) ? gaveBack(state, held) : state, reservationId, released),
        released,
      );
    }
    case "commit":
      return commit(state, held, call);
    case "return":
      return returnUnits(state, held, call);
  }
}

function commit(state: State, held: Held, call: Call & { kind: "commit" }): Step {
  if (held.state === "released") {
    return refuse(state, "RESERVATION_ENDED");
  }
  const requested = new Map(call.lines?.map(({ productId, quantity }) => [productId, quantity]));
  for (const [productId, quantity] of requested) {
    if (quantity > (held.lines.find((line) => line.productId === productId)?.quantity ?? 0)) {
      return refuse(state, "INVALID_INPUT");
    }
  }
  const sold = held.lines.map(({ productId, quantity }) =>
    call.lines === undefined ? quantity : (requested.get(productId) ?? 0),
  );
  if (held.state === "committed") {
    return String(sold) === String(held.sold) ? respond(state, held) : refuse(state, "ID_REUSED");
  }
  const late = held.state !== "active";
  if (late && call.strict) {
    return refuse(state, "RESERVATION_ENDED");
  }
  // A reservation past its deadline still holds its units. One that was swept has to hold them again.
  const short = held.lines.flatMap(({ productId }, index): [string, number, number][] => {
    const product = state.products.get(productId);
    const left = product === undefined || isDeleted(product) ? 0 : available(product);
    const units = sold[index] ?? 0;
    return !isHeld(held) && left < units ? [[productId, units, left]] : [];
  });
  if (short.length > 0) {
    return { state, result: refusalText({ code: "STOCK_SHORT", short }) };
  }
  const committed: Held = { ...held, state: "committed", sold, left: sold, revived: late };
  const free = isHeld(held)
    ? state
    : moved(state, held.lines, (index) => ({ held: sold[index] ?? 0, sold: 0 }));
  const next = moved(free, held.lines, (index, { quantity }) => ({
    held: -(isHeld(held) ? quantity : (sold[index] ?? 0)),
    sold: sold[index] ?? 0,
  }));
  return respond(withReservation(next, call.reservationId, committed), committed);
}

function returnUnits(state: State, held: Held, call: Call & { kind: "return" }): Step {
  const { reservationId, returnId, lines } = call;
  const key = `return ${JSON.stringify([reservationId, returnId])}`;
  const requested = `${reservationId} ${sorted(lines)}`;
  const before = state.done.get(key);
  if (before !== undefined) {
    return before === requested ? respond(state, held) : refuse(state, "ID_REUSED");
  }
  if (held.state !== "committed") {
    return refuse(state, "RESERVATION_ENDED");
  }
  const left = [...held.left];
  const places = lines.map(({ productId }) => held.lines.findIndex((line) => line.productId === productId));
  if (places.includes(-1)) {
    return refuse(state, "INVALID_INPUT");
  }
  for (const [index, { quantity }] of lines.entries()) {
    const place = places[index] ?? 0;
    left[place] = (left[place] ?? 0) - quantity;
  }
  if (left.some((units) => units < 0)) {
    return refuse(state, "RETURN_TOO_LARGE");
  }
  const next = moved(state, lines, (_, { quantity }) => ({ held: 0, sold: -quantity }));
  const returned: Held = { ...held, left };
  const done = new Map(state.done).set(key, requested);
  return respond({ ...withReservation(next, reservationId, returned), done }, returned);
}

function happen(state: State, { kind, reservationId }: Happening): Step {
  const held = state.reservations.get(reservationId);
  if (kind === "lapse" && held?.state === "active") {
    return respond(withReservation(state, reservationId, { ...held, state: "due" }), held);
  }
  if (kind === "sweep" && held?.state === "due") {
    const expired: Held = { ...held, state: "expired" };
    return respond(withReservation(gaveBack(state, held), reservationId, expired), expired);
  }
  return { state, result: "" };
}

function gaveBack(state: State, held: Held): State {
  return moved(state, held.lines, (_, { quantity }) => ({ held: -quantity, sold: 0 }));
}

/** Moves the units of each line. A product without a moved unit is unchanged. */
function moved(
  state: State,
  lines: readonly Line[],
  of: (index: number, line: Line) => { readonly held: number; readonly sold: number },
): State {
  let next = state;
  for (const [index, line] of lines.entries()) {
    const { held, sold } = of(index, line);
    const product = next.products.get(line.productId);
    if (product !== undefined && (held !== 0 || sold !== 0)) {
      next = withProduct(next, line.productId, {
        ...product,
        reserved: product.reserved + held,
        sold: product.sold + sold,
        version: product.version + 1,
      });
    }
  }
  return next;
}

function isHeld(held: Held): boolean {
  return held.state === "active" || held.state === "due";
}

function isDeleted({ upsertAt, deleteAt }: Product): boolean {
  return upsertAt === NEVER || deleteAt >= upsertAt;
}

function onHand({ declared, adjusted, sold }: Product): number {
  return declared + adjusted - sold;
}

function available(product: Product): number {
  return Math.max(0, onHand(product) - product.reserved - product.safety);
}

function sorted(lines: readonly Line[]): string {
  return JSON.stringify(lines.map(({ productId, quantity }) => [productId, quantity]).sort());
}

function refuse(state: State, code: InventoryErrorCode): Step {
  return { state, result: refusalText({ code, short: [] }) };
}

function unchanged(state: State, product: Product): Step {
  return { state, result: ledgerText({ ...product, deleted: isDeleted(product) }) };
}

function respond(state: State, held: Held): Step {
  const isAll = held.lines.every(({ quantity }, index) => held.left[index] === quantity);
  const committedLines =
    held.state !== "committed" || isAll
      ? []
      : held.lines.map(({ productId }, index) => ({ productId, quantity: held.left[index] ?? 0 }));
  const shown = held.state === "due" ? "active" : held.state;
  return { state, result: reservationText({ ...held, state: shown, committedLines }) };
}

function withProduct(state: State, productId: string, product: Product): State {
  return { ...state, products: new Map(state.products).set(productId, product) };
}

function withReservation(state: State, reservationId: string, held: Held): State {
  return { ...state, reservations: new Map(state.reservations).set(reservationId, held) };
}

const texts = new WeakMap<object, string>();

function textOf(part: Product | Held): string {
  const known = texts.get(part);
  const text = known ?? JSON.stringify(part);
  if (known === undefined) {
    texts.set(part, text);
  }
  return text;
}

/** The parts of the state as text. States with equal parts are indistinguishable to every call. */
export function describe({ products, reservations, done }: State): string[] {
  return [
    ...[...products].map(([id, product]) => `${id}=${textOf(product)}`),
    ...[...reservations].map(([id, held]) => `${id}=${textOf(held)}`),
    ...done.keys(),
  ].sort();
}
