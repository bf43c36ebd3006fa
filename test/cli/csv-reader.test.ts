import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { parse } from "csv-parse/sync";
import fc from "fast-check";
import { CsvReader, type CsvRecord, RECORD_LENGTH_MAX } from "../../cli/files/csv-reader.ts";
import { csvRecord, guardFormula, unguardFormula } from "../../cli/files/csv-writer.ts";

/** Reads a text in pieces of a length. */
function read(text: string, pieceLength = text.length): CsvRecord[] {
  const reader = new CsvReader();
  const records: CsvRecord[] = [];
  for (let at = 0; at < text.length; at += pieceLength)
    records.push(...reader.push(text.slice(at, at + pieceLength)));
  return [...records, ...reader.end()];
}

const cell = fc.string({
  unit: fc.constantFrom("a", "é", "😀", ",", '"', "\n", "\r\n", " ", "'", "=", "-"),
  maxLength: 6,
});
const table = fc.array(fc.array(cell, { minLength: 2, maxLength: 4 }), { minLength: 1, maxLength: 6 });

describe("CsvReader", () => {
  it("reads what csvRecord writes, as csv-parse does, however the text is cut into pieces", () => {
    fc.assert(
      fc.property(table, fc.integer({ min: 1, max: 9 }), (rows, pieceLength) => {
        const text = rows.map(csvRecord).join("");
        const cells = read(text, pieceLength).map((record) => record.cells);
        assert.deepEqual(cells, rows);
        assert.deepEqual(cells, parse(text, { relax_column_count: true, record_delimiter: "\r\n" }));
      }),
    );
  });

  it("names the line on which a record begins, with line ends in cells and empty lines", () => {
    const records = read('a,b\r\n"1\r\n2\n3",x\r\n\r\n4,5');
    assert.deepEqual(
      records.map(({ line, cells }) => ({ line, cells })),
      [
        { line: 1, cells: ["a", "b"] },
        { line: 2, cells: ["1\r\n2\n3", "x"] },
        { line: 6, cells: ["4", "5"] },
      ],
    );
  });

  for (const pieceLength of [1, 7, 1_000]) {
    it(`reports a bad record and reads the ones after it, in pieces of ${pieceLength}`, () => {
      const records = read(
        '1,"q"z,3\n2,5" pipe,3\n"x\ny"z,1,2\n4,5,6\n7,"never closed\n8,9,10\n',
        pieceLength,
      );
      assert.deepEqual(
        records.map(({ line, fault, cells }) => fault ?? { line, cells }),
        [
          {
            line: 1,
            cell: 1,
            reason: "continues after its closing quote; double the quotes within a quoted cell",
          },
          {
            line: 2,
            cell: 1,
            reason: 'has a quote within it; put the cell in quotes and double the ones within: "5"" pipe"',
          },
          {
            line: 4,
            cell: 0,
            reason: "continues after its closing quote; double the quotes within a quoted cell",
          },
          {
            line: 4,
            cell: 0,
            reason: 'has a quote within it; put the cell in quotes and double the ones within: "5"" pipe"',
          },
          { line: 5, cells: ["4", "5", "6"] },
          { line: 6, cell: 1, reason: "has an opening quote that is never closed" },
          { line: 7, cells: ["8", "9", "10"] },
        ],
      );
    });
  }

  it("gives up on a quote that is not closed within the longest record, and loses no other row", () => {
    const rows = Array.from({ length: 60_000 }, (_, n) => `${n},x\n`).join("");
    assert.ok(rows.length > RECORD_LENGTH_MAX);
    const records = read(`a,"open\n${rows}`, 65_536);
    assert.match(records[0]?.fault?.reason ?? "", /is longer than 262144 characters/);
    assert.equal(records.length, 60_001);
    assert.deepEqual(records.at(-1)?.cells, ["59999", "x"]);
    assert.equal(records.at(-1)?.line, 60_001);
  });
});

describe("a line without an end", () => {
  it("is reported once, and the next line is read", () => {
    const long = "x".repeat(RECORD_LENGTH_MAX + 100_000);
    const records = read(`1,2\n${long}\n3,4\n`, 65_536);
    assert.deepEqual(
      records.map(({ line, fault, cells }) => [line, fault === undefined ? cells : "fault"]),
      [
        [1, ["1", "2"]],
        [2, "fault"],
        [3, ["3", "4"]],
      ],
    );
  });
});

describe("guardFormula", () => {
  it("puts an apostrophe before what a spreadsheet would run, and unguardFormula removes it", () => {
    assert.deepEqual(["=1+1", "+1", "-1", "@a", "\t=1", "a=1", "'=1", ""].map(guardFormula), [
      "'=1+1",
      "'+1",
      "'-1",
      "'@a",
      "'\t=1",
      "a=1",
      "''=1",
      "",
    ]);
    fc.assert(fc.property(cell, (text) => assert.equal(unguardFormula(guardFormula(text)), text)));
  });
});
