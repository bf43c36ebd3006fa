import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { create, type DescMessage, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import { DeleteProductRequestSchema, PutProductRequestSchema } from "../../gen/inventory/v1/supply_pb.ts";
import { startTestApp, type TestApp } from "../support/app.ts";
import { need } from "../support/programs.ts";
import { startRedis } from "../support/redis-server.ts";
import { type Outcome, outcomeOf } from "./outcome.ts";

const INT32_MAX = 2_147_483_647;
const PRODUCT = "known";
const STOCK = "inventory.v1.StockService";
const SUPPLY = "inventory.v1.SupplyService";

type Json = Record<string, unknown>;

/** One field of one request that is otherwise valid. */
interface Field {
  readonly method: string;
  /** The field's path in proto names, as in a violation. */
  readonly field: string;
  readonly request: (value: unknown) => Json;
}

/** A value just out of bounds, with the texts that the description must contain: the value and the bound. */
interface Outside {
  readonly value: unknown;
  readonly met: string;
  readonly bound: string;
}

interface Domain {
  readonly fields: readonly Field[];
  readonly inside: readonly unknown[];
  readonly outside: readonly Outside[];
}

let ids = 0;
const nextId = (): string => `validation-${++ids}`;

const put = (message: Json): Json => ({ productId: PRODUCT, ...message });
const product = (details: Json): Json => put({ product: { name: "Lamp", price: 40, ...details } });
const count = (message: Json): Json => ({ productId: PRODUCT, count: 5, countId: nextId(), ...message });
const adjust = (message: Json): Json => ({
  productId: PRODUCT,
  delta: 1,
  adjustmentId: nextId(),
  ...message,
});

const field = (method: string, name: string, request: (value: unknown) => Json): Field => ({
  method,
  field: name,
  request,
});

const ID_FIELDS: readonly Field[] = [
  field("Inventory/Get", "id", (id) => ({ id })),
  field(`${STOCK}/GetStock`, "product_id", (productId) => ({ productId })),
  field(`${STOCK}/BatchGetStock`, "product_ids[1]", (id) => ({ productIds: [PRODUCT, id] })),
  field(`${SUPPLY}/PutProduct`, "product_id", (productId) => ({ productId })),
  field(`${SUPPLY}/DeleteProduct`, "product_id", (productId) => ({ productId })),
  field(`${SUPPLY}/CountStock`, "product_id", (productId) => count({ productId })),
  field(`${SUPPLY}/CountStock`, "count_id", (countId) => count({ countId })),
  field(`${SUPPLY}/AdjustStock`, "product_id", (productId) => adjust({ productId })),
  field(`${SUPPLY}/AdjustStock`, "adjustment_id", (adjustmentId) => adjust({ adjustmentId })),
  field(`${SUPPLY}/SetSafetyStock`, "product_id", (productId) => ({ productId, safety: 0 })),
  field(`${SUPPLY}/GetLedger`, "product_id", (productId) => ({ productId })),
  field(`${SUPPLY}/ListChanges`, "product_id", (productId) => ({ productId })),
];
const COLLECTION_ID = field(`${SUPPLY}/PutProduct`, "product.collection_id", (collectionId) =>
  product({ collectionId }),
);
const ID_INSIDE = [
  "x",
  "x".repeat(128),
  "é".repeat(64),
  "🧶".repeat(32),
  " ",
  "../..",
  "{b00}:p:known",
  "%00",
];
const ID_OUTSIDE: readonly Outside[] = [
  { value: "x".repeat(129), met: "129 bytes", bound: "128" },
  { value: `${"é".repeat(64)}x`, met: "129 bytes", bound: "128" },
  { value: "🧶".repeat(33), met: "132 bytes", bound: "128" },
  { value: "x".repeat(100_000), met: "100000 bytes", bound: "128" },
  { value: "a\u0000b", met: "a\\u0000b", bound: "control characters" },
  { value: "a\nb", met: "a\\nb", bound: "control characters" },
  { value: "a\u007fb", met: "a", bound: "control characters" },
  { value: "a\u0085b", met: "a", bound: "control characters" },
  { value: "caf\ufffd", met: "caf", bound: "U+FFFD" },
];

function textOf(bytesMax: number): Pick<Domain, "inside" | "outside"> {
  return {
    inside: ["", "x".repeat(bytesMax), "é".repeat(bytesMax / 2), "line\nline\t\u0000"],
    outside: [
      { value: "x".repeat(bytesMax + 1), met: `${bytesMax + 1} bytes`, bound: String(bytesMax) },
      { value: `${"é".repeat(bytesMax / 2)}x`, met: `${bytesMax + 1} bytes`, bound: String(bytesMax) },
    ],
  };
}

const outsideOf = (values: readonly number[], bound: string): readonly Outside[] =>
  values.map((value) => ({ value, met: String(value), bound }));

const token = (text: string): string => Buffer.from(text).toString("base64url");

const DOMAINS: Readonly<Record<string, Domain>> = {
  "an ID": {
    fields: ID_FIELDS,
    inside: ID_INSIDE,
    outside: [{ value: "", met: "empty", bound: "128" }, ...ID_OUTSIDE],
  },
  "an ID that may be left out": {
    fields: [COLLECTION_ID],
    inside: ["", ...ID_INSIDE],
    outside: ID_OUTSIDE,
  },
  "a list of IDs": {
    fields: [field(`${STOCK}/BatchGetStock`, "product_ids", (productIds) => ({ productIds }))],
    inside: [[PRODUCT], Array.from({ length: 1_000 }, () => "x".repeat(128))],
    outside: [
      { value: [], met: "0 entries", bound: "1000" },
      { value: Array.from({ length: 1_001 }, () => "x"), met: "1001 entries", bound: "1000" },
    ],
  },
  "a name": {
    fields: [field(`${SUPPLY}/PutProduct`, "product.name", (name) => product({ name }))],
    ...textOf(512),
  },
  "a description": {
    fields: [field(`${SUPPLY}/PutProduct`, "product.description", (description) => product({ description }))],
    ...textOf(16_384),
  },
  "a reason": {
    fields: [
      field(`${SUPPLY}/CountStock`, "reason", (reason) => count({ reason })),
      field(`${SUPPLY}/AdjustStock`, "reason", (reason) => adjust({ reason })),
    ],
    ...textOf(512),
  },
  "a price": {
    fields: [field(`${SUPPLY}/PutProduct`, "product.price", (price) => product({ price }))],
    inside: [0, 0.01, 1e12, "12.5", 5e-324],
    outside: [
      ...outsideOf([-1, -0.01, 1e12 + 1, 1e300], "0 to 1000000000000"),
      ...["NaN", "Infinity", "-Infinity"].map((value) => ({
        value,
        met: value,
        bound: "0 to 1000000000000",
      })),
    ],
  },
  "a quantity": {
    fields: [
      field(`${SUPPLY}/PutProduct`, "declared", (declared) => put({ declared })),
      field(`${SUPPLY}/CountStock`, "count", (value) => count({ count: value })),
      field(`${SUPPLY}/SetSafetyStock`, "safety", (safety) => put({ safety })),
    ],
    inside: [0, 1, "7", 1e3, INT32_MAX],
    outside: outsideOf([-1, -INT32_MAX - 1], "0 to 2147483647"),
  },
  "a difference": {
    fields: [field(`${SUPPLY}/AdjustStock`, "delta", (delta) => adjust({ delta }))],
    inside: [1, -1, INT32_MAX, -INT32_MAX],
    outside: [
      { value: 0, met: "is 0", bound: "above 0" },
      { value: -INT32_MAX - 1, met: "-2147483648", bound: "-2147483647 to 2147483647" },
    ],
  },
  "a version": {
    fields: [field(`${SUPPLY}/CountStock`, "expected_version", (value) => count({ expectedVersion: value }))],
    inside: ["0", 1, "18446744073709551615"],
    outside: [],
  },
  "a page's size": {
    fields: [field(`${SUPPLY}/ListChanges`, "page_size", (pageSize) => ({ productId: PRODUCT, pageSize }))],
    inside: [0, 1, 1_000],
    outside: outsideOf([-1, 1_001, INT32_MAX, -INT32_MAX - 1], "1 to 1000"),
  },
  "a page's token": {
    fields: [
      field(`${SUPPLY}/ListChanges`, "page_token", (value) => ({ productId: PRODUCT, pageToken: value })),
    ],
    inside: [""],
    outside: [
      "x",
      "version:1",
      token("version:-1"),
      token("version:1.5"),
      token("version:9999999999999999"),
    ].map((value) => ({ value, met: value, bound: "next_page_token" })),
  },
  "a time": {
    fields: [
      field(`${SUPPLY}/PutProduct`, "update_time", (updateTime) => put({ updateTime })),
      field(`${SUPPLY}/DeleteProduct`, "update_time", (updateTime) => ({ productId: "deleted", updateTime })),
    ],
    inside: ["1970-01-01T00:00:00Z", "1970-01-01T00:00:00.000001Z", "2024-02-29T12:00:00.123456789+02:00"],
    outside: [
      { value: "1969-12-31T23:59:59.000001Z", met: "1969-12-31T23:59:59.000001Z", bound: "1970 to 9999" },
      { value: "0001-01-01T00:00:00Z", met: "0001-01-01T00:00:00Z", bound: "1970 to 9999" },
    ],
  },
};

async function post(app: TestApp, method: string, request: Json): Promise<Outcome> {
  const headers = { "content-type": "application/json" };
  return await outcomeOf(
    await fetch(`${app.url}/${method}`, { method: "POST", headers, body: JSON.stringify(request) }),
  );
}

/** For values that JSON cannot express, but binary messages can. */
async function postBinary<D extends DescMessage>(
  app: TestApp,
  method: string,
  schema: D,
  request: MessageInitShape<D>,
): Promise<Outcome> {
  const headers = { "content-type": "application/proto" };
  const body = new Uint8Array(toBinary(schema, create(schema, request)));
  return await outcomeOf(await fetch(`${app.url}/${method}`, { method: "POST", headers, body }));
}

function assertRefused(outcome: Outcome, name: string, { met, bound }: Omit<Outside, "value">): void {
  assert.equal(outcome.code, "invalid_argument", `${name}: ${outcome.message}`);
  assert.equal(outcome.status, 400);
  const fields = new Set(outcome.violations.map((violation) => violation.field));
  assert.deepEqual([...fields], [name], outcome.message);
  const described = outcome.violations.map((violation) => violation.description).join("; ");
  assert.ok(described.includes(met), `"${described}" does not contain the value, ${met}`);
  assert.ok(described.includes(bound), `"${described}" does not contain the bound, ${bound}`);
  for (const { field: path, description } of outcome.violations) {
    assert.ok(outcome.message.includes(`${path} ${description}`), outcome.message);
  }
  assert.ok(outcome.message.length < 1_000, `a message of ${outcome.message.length} characters`);
}

const brief = (value: unknown): string => {
  const text = JSON.stringify(value);
  return text.length > 50 ? `${text.slice(0, 50)}… (${text.length})` : text;
};

describe("validation over the wire", () => {
  let app: TestApp;
  before(async () => {
    app = await startTestApp();
    const outcome = await post(app, `${SUPPLY}/PutProduct`, {
      productId: PRODUCT,
      declared: 5,
      updateTime: "2001-01-01T00:00:00Z",
    });
    assert.equal(outcome.code, "ok", outcome.message);
  });
  after(() => app?.stop());

  for (const [what, { fields, inside, outside }] of Object.entries(DOMAINS)) {
    describe(what, () => {
      for (const { method, field: name, request } of fields) {
        it(`${name} of ${method}`, async () => {
          for (const value of inside) {
            const outcome = await post(app, method, request(value));
            const legitimate = ["ok", "not_found", "failed_precondition", "aborted"];
            assert.ok(
              legitimate.includes(outcome.code),
              `${brief(value)}: ${outcome.code} ${outcome.message}`,
            );
          }
          for (const { value, ...expected } of outside) {
            assertRefused(await post(app, method, request(value)), name, expected);
          }
        });
      }
    });
  }

  it("a page token is valid only for the list that it came from", async () => {
    const list = async (pageToken: string): Promise<{ nextPageToken?: string }> => {
      const response = await fetch(`${app.url}/${SUPPLY}/ListChanges`, {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify({ productId: PRODUCT, pageSize: 1, pageToken }),
      });
      assert.equal(response.status, 200);
      return (await response.json()) as { nextPageToken?: string };
    };
    await post(app, `${SUPPLY}/AdjustStock`, adjust({ delta: 1 }));
    await post(app, `${SUPPLY}/AdjustStock`, adjust({ delta: -1 }));
    const { nextPageToken = "" } = await list("");
    assert.notEqual(nextPageToken, "");
    await list(nextPageToken);
  });

  it("a lowest price above the highest one", async () => {
    for (const [minPrice, maxPrice] of [
      [50, 20],
      [0.01, 0],
    ] as const) {
      const { code, violations } = await post(app, `${STOCK}/ListStock`, { minPrice, maxPrice });
      assert.equal(code, "invalid_argument");
      assert.deepEqual(
        violations.map(({ field }) => field),
        ["min_price"],
      );
      const description = violations[0]?.description ?? "";
      assert.match(description, new RegExp(`is ${minPrice}, above max_price, which is ${maxPrice}`));
    }
    assert.equal((await post(app, `${STOCK}/ListStock`, { minPrice: 20, maxPrice: 20 })).code, "ok");
  });

  it("times that JSON cannot express, in a binary message", async () => {
    const cases = [
      { seconds: 253_402_300_800n, nanos: 0, met: "253402300800 seconds", bound: "1970 to 9999" },
      { seconds: -(2n ** 63n), nanos: 0, met: "-9223372036854775808 seconds", bound: "1970 to 9999" },
      { seconds: 2n ** 63n - 1n, nanos: 0, met: "9223372036854775807 seconds", bound: "1970 to 9999" },
      { seconds: 0n, nanos: -1, met: "-1 nanoseconds", bound: "0 to 999999999" },
      { seconds: 0n, nanos: 1_000_000_000, met: "1000000000 nanoseconds", bound: "0 to 999999999" },
    ];
    for (const { seconds, nanos, met, bound } of cases) {
      const updateTime = { seconds, nanos };
      const request = { productId: PRODUCT, updateTime };
      const answers = [
        await postBinary(app, `${SUPPLY}/PutProduct`, PutProductRequestSchema, request),
        await postBinary(app, `${SUPPLY}/DeleteProduct`, DeleteProductRequestSchema, request),
      ];
      for (const outcome of answers) {
        assertRefused(outcome, "update_time", { met, bound });
      }
    }
    const latest = { seconds: 1n, nanos: 999_999_999 };
    const accepted = await postBinary(app, `${SUPPLY}/PutProduct`, PutProductRequestSchema, {
      productId: PRODUCT,
      updateTime: latest,
    });
    assert.equal(accepted.code, "ok", accepted.message);
  });

  it("reports several violations at once, each by its field, and writes nothing", async () => {
    const faulty = {
      productId: "",
      declared: -1,
      updateTime: "1900-01-01T00:00:00Z",
      product: { name: "x".repeat(513), description: "x".repeat(16_385), price: -1, collectionId: "\u0001" },
    };
    const { code, violations } = await post(app, `${SUPPLY}/PutProduct`, faulty);
    assert.equal(code, "invalid_argument");
    assert.deepEqual(violations.map((violation) => violation.field).toSorted(), [
      "declared",
      "product.collection_id",
      "product.description",
      "product.name",
      "product.price",
      "product_id",
      "update_time",
    ]);
    const productId = "never-made";
    await post(app, `${SUPPLY}/PutProduct`, { ...faulty, productId });
    assert.equal((await post(app, `${SUPPLY}/GetLedger`, { productId })).code, "not_found");
    const batch = await post(app, `${STOCK}/BatchGetStock`, { productIds: ["", PRODUCT, "\n", PRODUCT] });
    assert.deepEqual(
      batch.violations.map((violation) => violation.field),
      ["product_ids[0]", "product_ids[2]"],
    );
  });
});

for (const onRedis of [false, true]) {
  const skip = onRedis && need("redis-server").missing;
  it(`a time ahead of the ${onRedis ? "Redis" : "memory"} store's clock by more than five minutes is invalid`, {
    skip,
  }, async () => {
    await using redis = onRedis ? await startRedis() : undefined;
    await using app = await startTestApp(redis ? { REDIS_URL: redis.url } : {});
    const inMinutes = (minutes: number): string => new Date(Date.now() + minutes * 60_000).toISOString();
    for (const method of [`${SUPPLY}/PutProduct`, `${SUPPLY}/DeleteProduct`]) {
      const productId = "early";
      const ahead = inMinutes(6).replace(/\.\d+Z/, ".123Z");
      for (const updateTime of [ahead, ahead.replace("Z", "456789Z"), "9999-12-31T23:59:59Z"]) {
        const bad = await post(app, method, { productId, updateTime });
        assertRefused(bad, "update_time", { met: `is ${updateTime}, `, bound: "5 minutes ahead" });
      }
      const good = await post(app, method, { productId, updateTime: inMinutes(4) });
      assert.equal(good.code, "ok", good.message);
    }
  });
}
