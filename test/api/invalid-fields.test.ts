import assert from "node:assert/strict";
import { randomInt } from "node:crypto";
import { after, before, describe, it } from "node:test";
import {
  create,
  type DescField,
  type DescMessage,
  type DescMethod,
  toBinary,
  toJson,
} from "@bufbuild/protobuf";
import fc from "fast-check";
import { INVENTORY_SERVICES } from "../../server/api/services.ts";
import { startTestApp, type TestApp } from "../support/app.ts";
import { type BadValue, badLists, badValuesOf, wrongJson } from "./bad-values.ts";
import { call, type Encoding, type Outcome } from "./outcome.ts";

// Every field of every request, with every kind of bad value, in JSON and in binary. The fields come from the
// descriptors, so a new field fails this test until bad-values.ts says which of its values are invalid.

const seed = Number(process.env["FC_SEED"] ?? randomInt(2 ** 31));
const SAMPLES = 6;
/** Timeout of a hanging test, far above the normal duration. */
const HANG_MS = 280_000;
const KNOWN = "invalid-fields";

/** A message as protobuf-es takes it, or its JSON. */
type Fields = Record<string, unknown>;

const LINES = [
  { productId: KNOWN, quantity: 1 },
  { productId: KNOWN, quantity: 2 },
];
/** A valid request of each method. Its fields are those that are replaced by bad values. */
const VALID: Readonly<Record<string, Fields>> = {
  Get: { id: KNOWN },
  GetStock: { productId: KNOWN },
  BatchGetStock: { productIds: [KNOWN, KNOWN] },
  ListStock: { pageSize: 1 },
  ListCollections: {},
  WatchStock: { productIds: [KNOWN, KNOWN] },
  PutProduct: { productId: KNOWN, product: { name: "Lamp", price: 40 }, declared: 10 },
  DeleteProduct: { productId: "invalid-fields-deleted" },
  CountStock: { productId: KNOWN, count: 10, countId: "count" },
  AdjustStock: { productId: KNOWN, delta: 1, adjustmentId: "adjustment" },
  SetSafetyStock: { productId: KNOWN, safety: 0 },
  GetLedger: { productId: KNOWN },
  ListLedgers: { pageSize: 1 },
  ListChanges: { productId: KNOWN },
  BatchPutProducts: {
    requests: Array(2).fill({ productId: KNOWN, product: { name: "Lamp", price: 40 }, declared: 10 }),
  },
  BatchCountStock: { requests: Array(2).fill({ productId: KNOWN, count: 10, countId: "count" }) },
  BatchAdjustStock: { requests: Array(2).fill({ productId: KNOWN, delta: 1, adjustmentId: "adjustment" }) },
  PutCollection: { collection: { collectionId: KNOWN, name: "Lamps" } },
  DeleteCollection: { collectionId: "invalid-fields-deleted" },
  Reserve: { reservationId: "order", lines: LINES },
  CommitReservation: { reservationId: "order", lines: LINES },
  ReleaseReservation: { reservationId: "released" },
  ExtendReservation: { reservationId: "unknown" },
  ReturnReservation: { reservationId: "order", returnId: "return", lines: LINES },
  GetReservation: { reservationId: "order" },
  ListReservations: {},
};

/** One field of a request: where it is in the message, and its path as a violation names it. */
interface Place {
  readonly field: DescField;
  readonly keys: readonly (string | number)[];
  readonly path: string;
}

/** All fields, and the fields of their messages. The second element stands for all elements of a list. */
function placesOf(message: DescMessage, keys: Place["keys"] = [], prefix = ""): Place[] {
  return message.fields.flatMap((field): Place[] => {
    const place = { field, keys: [...keys, field.localName], path: `${prefix}${field.name}` };
    const element = { field, keys: [...place.keys, 1], path: `${place.path}[1]` };
    const inner = field.fieldKind === "list" ? element : place;
    const isNested = field.message !== undefined && !field.message.typeName.startsWith("google.protobuf.");
    const nested = isNested ? placesOf(field.message as DescMessage, inner.keys, `${inner.path}.`) : [];
    return field.fieldKind === "list" ? [place, element, ...nested] : [place, ...nested];
  });
}

/** A copy of the message with one field replaced; without the field where the value is `undefined`. */
function replaced(message: unknown, [key, ...rest]: Place["keys"], value: unknown): unknown {
  const copy = (Array.isArray(message) ? [...message] : { ...(message as Fields) }) as Fields;
  const name = String(key);
  const next = rest.length === 0 ? value : replaced(copy[name] ?? {}, rest, value);
  if (next === undefined) {
    delete copy[name];
  } else {
    copy[name] = next;
  }
  return copy;
}

function assertViolation(outcome: Outcome, { path }: Place, { quotes }: BadValue, label: string): void {
  assert.equal(outcome.code, "invalid_argument", `${label}: ${outcome.message}`);
  assert.deepEqual([...new Set(outcome.violations.map(({ field }) => field))], [path], label);
  const described = outcome.violations.map(({ description }) => description).join("; ");
  assert.ok(described.includes(quotes), `${label}: "${described}" does not quote ${quotes}`);
  assert.ok(outcome.message.includes(described), `${label}: the message does not have the violation`);
}

describe("every field of every request", { timeout: HANG_MS }, () => {
  let app: TestApp;
  before(async () => {
    app = await startTestApp();
    for (const name of ["PutProduct", "Reserve", "CommitReservation"]) {
      const outcome = await send(
        methodNamed(name),
        "json",
        toJsonFields(methodNamed(name), VALID[name] ?? {}),
      );
      assert.equal(outcome.code, "ok", `${name}: ${outcome.message}`);
    }
  });
  after(() => app?.stop());

  const methods = INVENTORY_SERVICES.flatMap((service): readonly DescMethod[] => service.methods);
  const methodNamed = (name: string): DescMethod => {
    const found = methods.find((method) => method.name === name);
    assert.ok(found, name);
    return found;
  };
  const toJsonFields = ({ input }: DescMethod, fields: Fields): Fields =>
    toJson(input, create(input, fields)) as Fields;
  const send = (method: DescMethod, encoding: Encoding, body: unknown): Promise<Outcome> =>
    call(
      app.url,
      method,
      encoding,
      encoding === "json"
        ? Buffer.from(JSON.stringify(body))
        : toBinary(method.input, create(method.input, body as Fields)),
    );

  for (const method of methods) {
    const valid = VALID[method.name];
    assert.ok(valid, `test/api/invalid-fields.test.ts needs a valid request of ${method.name}`);

    it(`${method.name} accepts the request whose fields are replaced`, async () => {
      const outcomes = [
        await send(method, "json", toJsonFields(method, valid)),
        await send(method, "binary", valid),
      ];
      for (const { code, message } of outcomes) {
        assert.notEqual(code, "invalid_argument", message);
      }
    });

    for (const place of placesOf(method.input)) {
      it(`${method.name}: ${place.path}`, async (t) => {
        const isList = place.field.fieldKind === "list" && typeof place.keys.at(-1) === "string";
        const kinds = {
          ...(isList ? badLists(place.field, method) : badValuesOf(place.field)),
          ...wrongJson(place.field, isList),
        };
        t.diagnostic(`FC_SEED=${seed}`);
        const checks = Object.entries(kinds).flatMap(([kind, values]) =>
          fc.sample(values, { seed, numRuns: SAMPLES }).flatMap((bad) => [
            ...("json" in bad
              ? [
                  {
                    encoding: "json" as const,
                    message: toJsonFields(method, valid),
                    value: bad.json,
                    kind,
                    bad,
                  },
                ]
              : []),
            ...("binary" in bad
              ? [{ encoding: "binary" as const, message: valid, value: bad.binary, kind, bad }]
              : []),
          ]),
        );
        await Promise.all(
          checks.map(async ({ encoding, message, value, kind, bad }) => {
            const outcome = await send(method, encoding, replaced(message, place.keys, value));
            assertViolation(outcome, place, bad, `${encoding}, ${kind}, ${bad.quotes}`);
          }),
        );
      });
    }
  }

  it("CommitReservation and Reserve: each line of a product is quoted as it was sent", async () => {
    const reserve = { reservationId: "two-lines", lines: LINES.slice(1) };
    assert.equal((await send(methodNamed("Reserve"), "binary", reserve)).code, "ok");
    const most = 2_147_483_647;
    const cases = [
      ["CommitReservation", [1, 2], `3 in total; 2 of "${KNOWN}" are held`],
      ["Reserve", [most, 1], `${most + 1} in total; the maximum is ${most}`],
    ] as const;
    for (const [name, quantities, bound] of cases) {
      const lines = quantities.map((quantity) => ({ productId: KNOWN, quantity }));
      const expected = quantities.map((quantity, index) => ({
        field: `lines[${index}].quantity`,
        description: `is ${quantity}, and the lines of "${KNOWN}" have ${bound}`,
      }));
      for (const encoding of ["json", "binary"] as const) {
        const outcome = await send(methodNamed(name), encoding, { reservationId: "two-lines", lines });
        assert.deepEqual(outcome.violations, expected, `${name}, ${encoding}: ${outcome.message}`);
      }
    }
  });
});
