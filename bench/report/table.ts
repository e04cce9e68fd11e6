/**
 * Tables for people: one row a result, the same names as in the JSON.
 *
 * @module
 */
import Table from "cli-table3";

/** A column: its heading, where its text comes from, and how wide it may be. */
export interface Column<Row> {
  /** The heading. */
  heading: string;
  /** The cell's text for a row. */
  text: (row: Row) => string;
  /** Numbers go right. @default {"left"} */
  align?: "left" | "right";
  /** Characters before the text wraps. @default {as wide as needed} */
  width?: number;
}

/** Lays out `rows` as a table without colours. */
export function formatTable<Row>(rows: readonly Row[], columns: readonly Column<Row>[]): string {
  const table = new Table({
    head: columns.map((column) => column.heading),
    colAligns: columns.map((column) => column.align ?? "left"),
    colWidths: columns.map((column) => column.width ?? null),
    wordWrap: true,
    style: { head: [], border: [], compact: true },
  });
  for (const row of rows) table.push(columns.map((column) => column.text(row)));
  return table.toString();
}

/** A number with `digits` decimals, "-" where there is none. */
export function decimals(value: number | null | undefined, digits: number): string {
  return value === null || value === undefined ? "-" : value.toFixed(digits);
}
