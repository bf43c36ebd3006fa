import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { create, type DescMethod, toBinary } from "@bufbuild/protobuf";
import { INVENTORY_SERVICES } from "../../server/api/services.ts";
import { call, type Outcome, outcomeOf } from "../api/outcome.ts";
import { startTestApp, type TestApp } from "../support/app.ts";
import { type Place, placesOf } from "./json-spellings.ts";

/** Timeout of a hanging test, far above the normal duration. */
const HANG_MS = 120_000;
/** Stands for the value under test in a request. */
const HERE = "\u0000here";

type Fields = Record<string, unknown>;

const LINES = [{ productId: "json", quantity: 1 }];
/** A valid request of each method that has required fields. */
const VALID: Readonly<Record<string, Fields>> = {
  Get: { id: "json" },
  GetStock: { productId: "json" },
  BatchGetStock: { productIds: ["json"] },
  PutProduct: { productId: "json", product: { name: "Lamp", price: 40 }, declared: 10 },
  DeleteProduct: { productId: "json-deleted" },
  CountStock: { productId: "json", count: 10, countId: "json-count" },
  AdjustStock: { productId: "json", delta: 1, adjustmentId: "json-adjustment" },
  SetSafetyStock: { productId: "json", safety: 0 },
  GetLedger: { productId: "json" },
  ListChanges: { productId: "json" },
  Reserve: { reservationId: "json-order", lines: LINES },
  CommitReservation: { reservationId: "json-unknown", lines: LINES },
  ReleaseReservation: { reservationId: "json-unknown" },
  ExtendReservation: { reservationId: "json-unknown" },
  ReturnReservation: { reservationId: "json-unknown", returnId: "json-return", lines: LINES },
  GetReservation: { reservationId: "json-unknown" },
};

/** A copy of the message with one field replaced. */
function replaced(message: unknown, [key, ...rest]: Place["keys"], value: unknown): unknown {
  if (key === undefined) {
    return value;
  }
  const copy = (Array.isArray(message) ? [...message] : { ...(message as Fields) }) as Fields;
  copy[String(key)] = replaced(copy[String(key)] ?? (typeof rest[0] === "number" ? [] : {}), rest, value);
  return copy;
}

/** Whether the request was refused for its content, and for which fields. */
function judgement({ code, violations }: Outcome): unknown {
  return { isInvalid: code === "invalid_argument", fields: violations.map(({ field }) => field) };
}

for (const LANE of ["on", "off"]) {
  describe(`JSON requests, with LANE=${LANE}`, { timeout: HANG_MS }, () => {
    let app: TestApp;
    before(async () => {
      app = await startTestApp({ LANE });
    });
    after(() => app?.stop());

    const send = (method: DescMethod, text: string | Uint8Array): Promise<Outcome> =>
      call(app.url, method, "json", Buffer.from(text));
    const methods = INVENTORY_SERVICES.flatMap((service): readonly DescMethod[] => service.methods);
    const methodNamed = (name: string): DescMethod => {
      const found = methods.find((method) => method.name === name);
      assert.ok(found, name);
      return found;
    };

    for (const method of methods) {
      const valid = VALID[method.name] ?? {};
      for (const { path, keys, spellings } of placesOf(method.input)) {
        it(`${method.name}: ${path} accepts and refuses the same values as in binary`, async () => {
          const template = JSON.stringify(replaced(valid, keys, HERE));
          assert.ok(template.includes(JSON.stringify(HERE)));
          for (const spelling of spellings) {
            const text = template.replace(JSON.stringify(HERE), () => spelling.text);
            const label = `${method.name} ${text}`;
            const outcome = await send(method, text);
            if ("value" in spelling) {
              const message = create(method.input, replaced(valid, keys, spelling.value) as Fields);
              const binary = await call(app.url, method, "binary", toBinary(method.input, message));
              assert.deepEqual(judgement(outcome), judgement(binary), `${label}: ${outcome.message}`);
            } else {
              assert.equal(outcome.code, "invalid_argument", label);
              assert.deepEqual(
                outcome.violations.map(({ field }) => field),
                [path],
                `${label}: ${outcome.message}`,
              );
              const [{ description } = { description: "" }] = outcome.violations;
              const shown = spelling.text.includes("\\u") ? "lone surrogate" : spelling.text;
              assert.ok(description.startsWith("is ") && description.includes(shown), description);
              assert.ok(outcome.message.includes(`${path} ${description}`), outcome.message);
            }
          }
        });
      }

      it(`${method.name} accepts null as an absent field`, async () => {
        for (const { localName, jsonName } of method.input.fields) {
          const { [localName]: _, ...rest } = valid;
          const absent = await send(method, JSON.stringify(rest));
          const outcome = await send(method, JSON.stringify({ ...rest, [jsonName]: null }));
          assert.deepEqual(judgement(outcome), judgement(absent), localName);
        }
      });
    }

    it("refuse a field that is misspelt where stock is changed, and ignore it where it is read", async () => {
      for (const [name, isRefused] of [
        ["Reserve", true],
        ["GetReservation", true],
        ["PutProduct", true],
        ["GetLedger", true],
        ["GetStock", false],
        ["ListStock", false],
        ["WatchStock", false],
        ["Get", false],
      ] as const) {
        const method = methodNamed(name);
        const valid = VALID[name] ?? {};
        const outcome = await send(method, JSON.stringify({ ...valid, tll: 1.5e300, more: [{ x: [1.5] }] }));
        if (isRefused) {
          assert.equal(outcome.code, "invalid_argument", name);
          assert.deepEqual(
            outcome.violations.map(({ field }) => field),
            ["tll", "more"],
          );
          assert.match(
            outcome.message,
            new RegExp(`tll is not a field of ${method.input.typeName}; its fields are`),
          );
        } else {
          assert.notEqual(outcome.code, "invalid_argument", `${name}: ${outcome.message}`);
        }
      }
    });

    it("refuse a misspelt field inside a message, and hold nothing", async () => {
      const reservationId = "json-misspelt";
      const reserve = methodNamed("Reserve");
      const lines = [...LINES, { productId: "json", quantity: 1, quantiy: 5 }];
      const outcome = await send(reserve, JSON.stringify({ reservationId, lines }));
      assert.deepEqual(
        outcome.violations.map(({ field }) => field),
        ["lines[1].quantiy"],
      );
      const held = await send(methodNamed("GetReservation"), JSON.stringify({ reservationId }));
      assert.equal(held.code, "not_found");
    });

    it("report every field that cannot be read at once", async () => {
      const text =
        '{"reservationId":1,"lines":[{"productId":"a","quantity":"x"},{"productId":true}],"ttl":"5"}';
      const outcome = await send(methodNamed("Reserve"), text);
      assert.deepEqual(
        outcome.violations.map(({ field }) => field),
        ["reservation_id", "lines[0].quantity", "lines[1].product_id", "ttl"],
      );
    });

    const id = Buffer.from('{"productId":"');
    const end = Buffer.from('"}');
    const BAD_TEXTS: readonly (readonly [what: string, text: string | Buffer, message: RegExp])[] = [
      ["a byte that is not UTF-8", Buffer.concat([id, Buffer.from([0xe9]), end]), /not valid UTF-8/],
      ["an overlong encoding", Buffer.concat([id, Buffer.from([0xc0, 0xaf]), end]), /not valid UTF-8/],
      ["a surrogate in UTF-8", Buffer.concat([id, Buffer.from([0xed, 0xa0, 0x80]), end]), /not valid UTF-8/],
      ["UTF-16", Buffer.from('{"productId":"p"}', "utf16le"), /not valid/],
      ["a key that is given twice", '{"productId":"a","productId":"a"}', /"productId" more than once/],
      [
        "a key that is given twice, once escaped",
        '{"productId":"a","product\\u0049d":"b"}',
        /more than once/,
      ],
      [
        "a key that is given twice in an ignored field",
        '{"productId":"a","x":{"y":1,"y":1}}',
        /"y" more than once/,
      ],
      ["a field in both of its spellings", '{"productId":"a","product_id":"b"}', /product_id is given twice/],
      ["nothing", "", /not valid JSON/],
      ["a part of an object", '{"productId":"a"', /not valid JSON/],
      ["two values", '{"productId":"a"}{}', /not valid JSON/],
      ["a trailing comma", '{"productId":"a",}', /not valid JSON/],
      ["a comment", '{"productId":"a"/**/}', /not valid JSON/],
      ["single quotes", "{'productId':'a'}", /not valid JSON/],
      ["NaN without quotes", '{"productId":"a","x":NaN}', /not valid JSON/],
      ["a number with a leading zero", '{"productId":"a","x":01}', /not valid JSON/],
      ["a control character", '{"productId":"a\nb"}', /not valid JSON/],
      ["an array", "[]", /give a JSON object/],
      ["a string", '"productId"', /give a JSON object/],
      ["null", "null", /give a JSON object/],
    ];
    for (const [what, text, message] of BAD_TEXTS) {
      it(`refuse ${what}, in unary calls, streams and GETs`, async () => {
        const bytes = Buffer.from(text as string);
        const watch = Buffer.from(
          bytes.toString("latin1").replaceAll("productId", "x").replaceAll("product_id", "x"),
          "latin1",
        );
        const query = `encoding=json&base64=1&message=${bytes.toString("base64url")}`;
        const got = await fetch(`${app.url}/inventory.v1.StockService/GetStock?${query}`);
        const outcomes = [
          await send(methodNamed("GetStock"), bytes),
          await outcomeOf(got),
          // The field is another one there.
          ...(/product|once/.test(message.source) ? [] : [await send(methodNamed("WatchStock"), watch)]),
        ];
        for (const outcome of outcomes) {
          assert.equal(outcome.code, "invalid_argument", outcome.message);
          assert.match(outcome.message, message);
        }
      });
    }

    it("accept a byte order mark, unusual keys and deep nesting in a field that is ignored", async () => {
      const deep = `${"[".repeat(1_000)}${"]".repeat(1_000)}`;
      for (const text of [
        '\ufeff{"productId":"json"}',
        '{"productId":"json","__proto__":{"productId":"x"},"constructor":1,"":2}',
        `{"productId":"json","x":${deep}}`,
        ' {\t"productId" :\r\n"json" } ',
        '{"product_id":"json"}',
      ]) {
        const outcome = await send(methodNamed("GetStock"), text);
        assert.equal(outcome.code, "ok", `${text.slice(0, 80)} ${outcome.message}`);
      }
    });

    it("refuse JSON nested too deeply to parse, and stay up", async () => {
      const deep = `{"productId":"json","x":${"[".repeat(200_000)}${"]".repeat(200_000)}}`;
      const outcome = await send(methodNamed("GetStock"), deep);
      assert.ok(["ok", "invalid_argument"].includes(outcome.code), outcome.code);
      assert.equal((await send(methodNamed("GetStock"), '{"productId":"json"}')).code, "ok");
    });
  });
}
