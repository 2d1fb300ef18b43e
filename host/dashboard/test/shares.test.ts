import { expect, test } from "vitest";
import type { Metric } from "../src/contract";
import type { Line } from "../src/series";
import { addsUp, shareOf } from "../src/shares";

test.each([
  ["count()", true],
  ["count(*) where type = 'error' and (a = 1 or b = 2)", true],
  ["sum(props.amount)\n where type = 'purchase'", true],
  ["uniq(user_id)", false],
  ["avg(props.ms)", false],
  ["sum(props.amount) / count()", false],
  ["quantile(0.5, props.ms)", false],
])("%s adds up: %s", (expression, want) => {
  expect(addsUp({ kind: "aggregate", value: "number", expression } as Metric)).toBe(want);
});

test("a metric of metrics is not shared out, whatever its name", () => {
  expect(addsUp({ kind: "composite", value: "number", expression: "count" } as Metric)).toBe(false);
});

const line = (points: Line["points"]): Line => ({ labels: { country: "US" }, points, anomalies: [], band: [] });

test.each([
  ["a part of the whole", [[0, 1], [60, 3]], [[0, 4], [60, 3]], [[0, 0.25], [60, 1]]],
  ["the total began before", [[60, 1]], [[0, 4], [60, 2]], [[60, 0.5]]],
  ["no total, no share", [[0, 1], [60, 1]], [[60, 2]], [[0, null], [60, 0.5]]],
  ["nothing to share, or less", [[0, 0], [60, 1], [120, null]], [[0, 0], [60, -2], [120, 1]], [[0, null], [60, null], [120, null]]],
] as [string, Line["points"], Line["points"], Line["points"]][])("%s", (_what, own, total, want) => {
  expect(shareOf(line(own), line(total)).points).toEqual(want);
});
