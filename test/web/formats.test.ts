import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { ageText, chooseLocale, formatsOf } from "../../web/view/formats.ts";

const NOON = Date.UTC(2026, 10, 28, 12, 3, 5);
const MINUTE_MS = 60_000;

describe("formats of the page", () => {
  it("says how old counts are, from a minute on", () => {
    for (const [minutes, text] of [
      [0, ""],
      [0.99, ""],
      [1, "1 minute old"],
      [119, "119 minutes old"],
      [120, "2 hours old"],
      [48 * 60, "2 days old"],
      [-5, ""],
    ] as const) {
      assert.equal(ageText(NOON, NOON + minutes * MINUTE_MS), text);
    }
  });

  it("adds the date to a time of another day", () => {
    const { time } = formatsOf("en", "EUR", "UTC");
    assert.equal(time(NOON, NOON + MINUTE_MS), "12:03:05 UTC");
    assert.equal(time(NOON, NOON + 24 * 60 * MINUTE_MS), "Nov 28, 2026, 12:03:05 UTC");
  });

  it("takes the first language that the runtime knows, and English for anything else", () => {
    assert.equal(chooseLocale(["xx-invalid-😀", "fr-CA", "en"]), "fr-CA");
    for (const tags of [[], [""], ["*"], ["<script>"], ["x".repeat(1_000)]]) {
      assert.equal(chooseLocale(tags), "en");
    }
  });

  it("writes prices in the currency of the shop, with Latin digits", () => {
    assert.equal(formatsOf("en", "JPY").price(1_234), "¥1,234");
    assert.equal(formatsOf("de", "EUR").price(1_234.5), "1.234,50\u00a0€");
    assert.match(formatsOf("ar-EG", "EUR").price(1_234.5), /1,234\.50/);
  });
});
