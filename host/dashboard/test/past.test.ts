import { describe, expect, test } from "vitest";
import type { Metric } from "../src/contract";
import { pastSpec, refine, scaleOf } from "../src/past";
import { DAY, HOUR, MINUTE } from "../src/time";

const noon = Date.parse("2026-11-24T12:00:00Z");
const subject = { metric: "events", by: ["country"], where: { device: ["mobile"] } };

describe("what is asked for", () => {
  test.each([
    ["yesterday of a day, with the hour that comes", "24h", DAY, MINUTE, DAY, { stepMs: MINUTE, span: { from: noon - 2 * DAY, to: noon + HOUR - DAY } }],
    ["last week is kept by the hour", "6h", 6 * HOUR, MINUTE, 7 * DAY, { stepMs: HOUR, span: { from: noon - 7 * HOUR - 7 * DAY, to: noon + 2 * HOUR - 7 * DAY } }],
    ["hours stay hours", "30d", 30 * DAY, HOUR, DAY, { stepMs: HOUR, span: { from: noon - 31 * DAY - HOUR, to: noon + 2 * HOUR - DAY } }],
  ])("%s", (_what, range, rangeMs, stepMs, before, want) => {
    expect(pastSpec({ ...subject, stepMs, live: { range, rangeMs } }, before, noon + 90_000)).toEqual({ ...subject, ...want });
  });

  test("of a chosen piece of time the same piece", () => {
    const span = { from: noon - 3 * HOUR, to: noon - HOUR };
    expect(pastSpec({ ...subject, stepMs: MINUTE, span }, DAY, noon)).toEqual({ ...subject, stepMs: MINUTE, span: { from: span.from - DAY, to: span.to - DAY } });
  });
});

const metric = (m: Partial<Metric>): Metric => ({ kind: "aggregate", value: "number", window_ms: MINUTE, per_ms: null, unit: null, expression: "count()", ...m }) as Metric;

test.each([
  ["a count of a minute is a sixtieth", metric({}), 1 / 60],
  ["of an hour as it is", metric({ window_ms: HOUR }), 1],
  ["a rate is one at any length", metric({ per_ms: 1000 }), 1],
  ["so is a share", metric({ kind: "composite", unit: "%" }), 1],
  ["a mean of means is good enough", metric({ expression: "sum(a) / count()" }), 1],
  ["users of an hour say nothing of those of a minute", metric({ expression: "uniq(user_id)" }), null],
  ["nor does the largest", metric({ expression: "max(a)" }), null],
  ["nor what is made of others", metric({ kind: "composite", expression: "events + errors" }), null],
])("%s", (_what, m, want) => expect(scaleOf(m, MINUTE, HOUR)).toBe(want));

test("an hour's value stands in its middle, and lines go between", () => {
  const line = { labels: {}, points: [[0, 60], [HOUR, 120], [3 * HOUR, 60], [4 * HOUR, null]] as [number, number | null][], anomalies: [], band: [] };
  const { points } = refine(line, 10 * MINUTE, HOUR, 10 * MINUTE, 1 / 6);
  expect(points.map(([t, v]) => [t / MINUTE, v])).toEqual([
    [30, expect.closeTo(10.83, 1)],
    [40, expect.closeTo(12.5, 1)],
    [50, expect.closeTo(14.17, 1)],
    [60, expect.closeTo(15.83, 1)],
    [70, expect.closeTo(17.5, 1)],
    [80, expect.closeTo(19.17, 1)],
  ]);
});

test("of a window of an hour it is the point that ends with it", () => {
  const line = { labels: {}, points: [[0, 5], [HOUR, 6]] as [number, number][], anomalies: [], band: [] };
  expect(refine(line, MINUTE, HOUR, HOUR, 1).points[0]).toEqual([59 * MINUTE, 5]);
});
