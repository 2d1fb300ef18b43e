// What a chart shows as a table, and a table as CSV (RFC 4180). Times are ISO 8601 in UTC, values as the host has them.
import type { Labels } from "./contract";

export type Cell = string | number | null;

export interface Table {
  head: string[];
  rows: Cell[][];
}

export interface TableLine {
  name: string;
  labels: Labels;
  column: (number | null)[];
  /** The same some time before, in the same columns. */
  past: (number | null)[] | null;
}

/** A row a point, as of `tidemark query --format csv`: time, a column for each label, value. Lines without labels are told apart
 *  by their names; `before` is what the lines are compared with. */
export function chartTable(times: number[], lines: TableLine[], value: string, before: string | null): Table {
  const labels = [...new Set(lines.flatMap((l) => Object.keys(l.labels)))];
  const named = labels.length === 0 && lines.length > 1;
  const rows: Cell[][] = [];
  for (const line of lines) {
    times.forEach((t, i) => {
      const [v, past] = [line.column[i] ?? null, line.past?.[i] ?? null];
      if (v === null && (before === null || past === null)) return;
      const who = named ? [line.name] : labels.map((d) => line.labels[d] ?? "");
      rows.push([new Date(t).toISOString(), ...who, v, ...(before === null ? [] : [past])]);
    });
  }
  return { head: ["time", ...(named ? ["series"] : labels), value, ...(before === null ? [] : [before.replace(" ", "_")])], rows };
}

export function csv({ head, rows }: Table): string {
  const cell = (c: Cell): string => (c === null ? "" : typeof c === "number" ? String(c) : /[",\r\n]/.test(c) ? `"${c.replaceAll('"', '""')}"` : c);
  return [head, ...rows].map((row) => `${row.map(cell).join(",")}\r\n`).join("");
}

/** `revenue_2026-11-30T2013Z_2026-12-01T0213Z.csv` */
export function fileName(metric: string, window: { from: number; to: number }, ending: string): string {
  const time = (t: number): string => new Date(t).toISOString().replace(/(\d\d):(\d\d):.*/, "$1$2Z");
  return `${metric}_${time(window.from)}_${time(window.to)}.${ending}`;
}
