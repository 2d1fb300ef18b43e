import { expect, test } from "vitest";
import type { Expectation } from "../src/contract";
import { extremes, lonely, runs, timeLabel, valueRange } from "../src/scale";

test.each([
  ["counts begin at zero", 50, 100, true, [0, 108]],
  ["below zero is shown too", -50, 50, true, [-50, 58]],
  ["only zeros", 0, 0, true, [0, 1]],
  ["nothing at all", null, null, true, [0, 1]],
  ["a mean stands in the middle", 100, 200, false, [88, 212]],
  ["but not below zero where nothing is", 1, 101, false, [0, 113]],
  ["a flat line has room", 50, 50, false, [45, 55]],
  ["a flat zero as well", 0, 0, false, [0, 1]],
] as const)("%s", (_name, low, high, fromZero, range) => {
  const [min, max] = valueRange(low, high, fromZero);
  expect(min).toBeCloseTo(range[0], 9);
  expect(max).toBeCloseTo(range[1], 9);
});

test("a tick is the time, at midnight and in long ranges the date", () => {
  const noon = new Date(2026, 10, 24, 12, 30).getTime();
  const midnight = new Date(2026, 10, 24).getTime();
  expect(timeLabel(noon, 3_600_000)).toBe("12:30");
  expect(timeLabel(midnight, 3_600_000)).toBe("Nov 24");
  expect(timeLabel(noon, 86_400_000)).toBe("Nov 24");
});

test("a band breaks at gaps, and where no bound is known", () => {
  const at = (t: number, upper: number | null = 2): Expectation => [t, 1, null, upper];
  const band = [at(0), at(1), at(2, null), at(3), at(4), at(6), at(20)];
  expect(runs(band, { from: 1, to: 10 }, 1).map((run) => run.map((e) => e[0]))).toEqual([[0, 1], [3, 4], [6]]);
});

test("points without neighbours", () => {
  expect(lonely([1, null, 2, 3, null, 4, null, null, 5])).toEqual([0, 5, 8]);
  expect(lonely([null, undefined])).toEqual([]);
});

test.each([
  [[[1, null, 7], [3]], 2, 5, [1, 7]],
  [[[null]], null, null, [null, null]],
  [[], 2, 5, [2, 5]],
  [[[-4]], null, null, [-4, -4]],
])("extremes of columns and of what is known %#", (columns, low, high, want) => expect(extremes(columns, low, high)).toEqual(want));
