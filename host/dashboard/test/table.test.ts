import { expect, test } from "vitest";
import { chartTable, csv, fileName, type TableLine } from "../src/table";

const from = Date.parse("2026-11-24T12:00:00Z");
const times = [from, from + 60_000];
const line = (l: Partial<TableLine>): TableLine => ({ name: "", labels: {}, column: [1, 2], past: null, ...l });

test.each([
  ["one line", [line({})], null, "time,value\r\n2026-11-24T12:00:00.000Z,1\r\n2026-11-24T12:01:00.000Z,2\r\n"],
  ["no point, no row", [line({ column: [null, 0.5] })], null, "time,value\r\n2026-11-24T12:01:00.000Z,0.5\r\n"],
  [
    "labels are columns",
    [line({ labels: { country: "US" }, column: [1, null] }), line({ labels: { country: "" }, column: [null, 3] })],
    null,
    "time,country,value\r\n2026-11-24T12:00:00.000Z,US,1\r\n2026-11-24T12:01:00.000Z,,3\r\n",
  ],
  [
    "lines without labels have their names",
    [line({ name: "p50", column: [1, null] }), line({ name: "p95", column: [9, null] })],
    null,
    "time,series,value\r\n2026-11-24T12:00:00.000Z,p50,1\r\n2026-11-24T12:00:00.000Z,p95,9\r\n",
  ],
  [
    "what it is compared with is a column, also where there is no point now",
    [line({ column: [1, null], past: [null, 7] })],
    "last week",
    "time,value,last_week\r\n2026-11-24T12:00:00.000Z,1,\r\n2026-11-24T12:01:00.000Z,,7\r\n",
  ],
  ["nothing", [], null, "time,value\r\n"],
])("%s", (_what, lines, before, want) => expect(csv(chartTable(times, lines, "value", before))).toBe(want));

test("what would break a cell is quoted", () => {
  expect(csv({ head: ["a,b"], rows: [['say "so"'], ["two\nlines"], [-1.5], [null]] })).toBe('"a,b"\r\n"say ""so"""\r\n"two\nlines"\r\n-1.5\r\n\r\n');
});

test("a file is called by metric and time", () => {
  expect(fileName("revenue", { from, to: from + 5_400_000 }, "csv")).toBe("revenue_2026-11-24T1200Z_2026-11-24T1330Z.csv");
});
