import { describe, expect, test } from "vitest";
import type { Delta, Point } from "../src/contract";
import { episodesOf, newestFirst, ongoing } from "../src/episodes";
import type { Metric } from "../src/contract";
import { Book, columns, extent, lastPoint, presentPoint, shrink, valueAt, weight } from "../src/series";

const M = 60_000;
const points = (...values: (number | null)[]): Point[] => values.map((v, i) => [i * M, v]);
const book = (): Book =>
  new Book({
    seq: 10,
    step_ms: M,
    provisional_from: 2 * M,
    series: [
      { labels: { country: "US" }, points: points(1, 2, 3) },
      { labels: { country: "DE" }, points: points(4, 5) },
    ],
  });
const delta = (d: Partial<Delta>): Delta => ({ op: "delta", id: "a", prev: 10, seq: 12, points: [], ...d });

describe("a snapshot and its deltas", () => {
  test("points are corrected, appended and put in order", () => {
    const b = book();
    expect(b.apply(delta({ points: [[0, M, 20], [0, 3 * M, 4], [1, 5 * M, 9], [1, 3 * M, 8]], provisional_from: 3 * M }))).toBe(true);
    expect(b.lines[0]!.points).toEqual(points(1, 20, 3, 4));
    expect(b.lines[1]!.points).toEqual([[0, 4], [M, 5], [3 * M, 8], [5 * M, 9]]);
    expect([b.seq, b.provisionalFrom]).toEqual([12, 3 * M]);
  });

  test("the band grows with the points, and all can be closed", () => {
    const b = book();
    expect(b.apply(delta({ band: [[1, M, 5, 4, null], [1, 0, 3, 2, 4], [1, M, 5, 4, 6]], provisional_from: null }))).toBe(true);
    expect(b.lines[1]!.band).toEqual([[0, 3, 2, 4], [M, 5, 4, 6]]);
    expect(b.provisionalFrom).toBe(Number.POSITIVE_INFINITY);
  });

  test("it says how far back it is complete, until nothing is missing", () => {
    const b = new Book({ seq: 10, step_ms: M, series: [], complete_from: 7 * M });
    expect(b.completeFrom).toBe(7 * M);
    b.apply(delta({}));
    expect(b.completeFrom).toBe(7 * M);
    b.apply(delta({ prev: 12, complete_from: 0 }));
    expect([b.completeFrom, book().completeFrom]).toEqual([0, 0]);
  });

  test("new series come after the known ones", () => {
    const b = book();
    expect(b.apply(delta({ new_series: [{ labels: { country: "FR" } }], points: [[2, M, 7]] }))).toBe(true);
    expect(b.lines[2]).toEqual({ labels: { country: "FR" }, points: [[M, 7]], anomalies: [], band: [] });
  });

  test("a delta that does not continue changes nothing", () => {
    const b = book();
    expect(b.apply(delta({ prev: 9, points: [[0, M, 20]] }))).toBe(false);
    expect(b.lines[0]!.points).toEqual(points(1, 2, 3));
    expect(b.seq).toBe(10);
  });

  test("a delta for an unknown series asks for a snapshot", () => expect(book().apply(delta({ points: [[5, M, 1]] }))).toBe(false));

  test("an anomaly is set, replaced and cleared", () => {
    const b = book();
    const a = { op: "anomaly" as const, id: "a", labels: { country: "DE" }, t: M, value: 5, expected: 9, lower: 8, upper: 10, score: 4, rule: "zscore" };
    b.mark(a);
    b.mark({ ...a, t: 0, score: 3 });
    b.mark({ ...a, score: 5 });
    expect(b.lines[1]!.anomalies.map((x) => [x.t, x.score])).toEqual([[0, 3], [M, 5]]);
    b.mark({ ...a, cleared: true });
    expect(b.lines[1]!.anomalies.map((x) => x.t)).toEqual([0]);
    expect(b.lines[0]!.anomalies).toEqual([]);
  });

  test("what left the range is forgotten", () => {
    const b = book();
    b.trim(M);
    expect(b.lines[0]!.points).toEqual([[M, 2], [2 * M, 3]]);
    expect(b.empty).toBe(false);
  });
});

test("columns share the time axis, gaps stay gaps", () => {
  const lines = [
    { labels: {}, points: [[M, 1], [3 * M, 3]] as Point[], anomalies: [], band: [] },
    { labels: {}, points: points(0, 10, 20, 30, 40, 50), anomalies: [], band: [] },
  ];
  expect(columns(lines, M, 4 * M, M)).toEqual([[M, 2 * M, 3 * M, 4 * M], [1, null, 3, null], [10, 20, 30, 40]]);
  expect(columns(lines, M + 1, M, M)).toEqual([[], [], []]);
});

test("values of a line", () => {
  const line = { labels: {}, points: points(3, null, 7, 5), anomalies: [], band: [] };
  expect(valueAt(line, 2 * M)).toBe(7);
  expect(valueAt(line, 9 * M)).toBeNull();
  expect(lastPoint(line)).toEqual([3 * M, 5]);
  expect(lastPoint(line, 2 * M)).toEqual([0, 3]);
  expect(extent(line, 0, 2 * M)).toEqual({ last: 7, min: 3, max: 7 });
  expect(weight(line)).toBe(15);
  expect(shrink(line.points, 0, 4 * M, 2)).toEqual([3, 6]);
  expect(shrink([], 0, 4 * M, 2)).toEqual([null, null]);
});

test("the minute that has just begun does not stand for now, except where that is fair", () => {
  const b = book();
  const line = b.lines[0];
  expect(presentPoint(b, line, { per_ms: null, window_ms: M })).toEqual([M, 2]);
  expect(presentPoint(b, line, { per_ms: 1000, window_ms: M })).toEqual([2 * M, 3]);
  expect(presentPoint(b, line, { per_ms: null, window_ms: 60 * M })).toEqual([2 * M, 3]);
});

test("anomalous points that follow one another are one episode", () => {
  const metric = { name: "revenue" } as Metric;
  const at = (minute: number, score: number) => ({ t: minute * M, value: 1, expected: 2, lower: 1.5, upper: 2.5, score, rule: "zscore" });
  const line = { labels: {}, points: [], band: [], anomalies: [at(0, 2), at(1, 4), at(5, 3), at(30, 2.5)] };
  const list = newestFirst(episodesOf(metric, line, M));
  expect(list.map((e) => [e.from / M, e.to / M, e.count, e.worst.t / M])).toEqual([[30, 30, 1, 30], [0, 5, 3, 1]]);
  expect(ongoing(list[0]!, M, 33 * M)).toBe(true);
  expect(ongoing(list[0]!, M, 40 * M)).toBe(false);
});
