import type { DescMessage, JsonObject, MessageShape } from "@bufbuild/protobuf";
import { messageJson, type Output } from "./output.ts";
import { type Column, Table } from "./table.ts";

/** Prints rows, of one page or of several, as one table or as JSON lines. */
export class ListPrinter<Row> {
  readonly #output: Output;
  readonly #table: Table<Row>;
  readonly #toJson: (row: Row) => JsonObject;

  constructor(output: Output, columns: readonly Column<Row>[], toJson: (row: Row) => JsonObject) {
    this.#output = output;
    this.#table = new Table(columns);
    this.#toJson = toJson;
  }

  async print(rows: readonly Row[]): Promise<void> {
    await this.#output.write(
      this.#output.json
        ? rows.map((row) => `${JSON.stringify(this.#toJson(row))}\n`).join("")
        : this.#table.format(rows),
    );
  }
}

/** A printer of messages, as protobuf JSON. */
export function messagePrinter<Desc extends DescMessage>(
  output: Output,
  schema: Desc,
  columns: readonly Column<MessageShape<Desc>>[],
): ListPrinter<MessageShape<Desc>> {
  return new ListPrinter(output, columns, (row) => messageJson(schema, row));
}
