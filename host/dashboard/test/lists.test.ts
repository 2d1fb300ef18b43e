import { describe, expect, it } from "vitest";
import type { Metric } from "../src/contract";
import { listStep, ranked, shownAt, stages, stepName } from "../src/lists";
import { family, familyTitle, lineName } from "../src/percentiles";
import { Book } from "../src/series";

const MINUTE = 60_000;

function metric(name: string, expression: string, more: Partial<Metric> = {}): Metric {
  const title = (name[0]!.toUpperCase() + name.slice(1)).replace(/_/g, " ");
  return {
    name, title, expression, unit: "ms", better: null, kind: "aggregate", window_ms: MINUTE, per_ms: null, dimensions: ["country"],
    estimate: true, zero_fill: false, value: "number", steps: null, state: "live", complete_from: null, anomalies: null, changes: [], ...more,
  };
}

describe("funnels", () => {
  it("say how many came from the step before and from the first one", () => {
    const found = stages([200, 50, 0, 0], ["type = 'page_view'", "type = 'a' and x > 3", "b", "c"]);
    expect(found.map((s) => s.name)).toEqual(["page view", "type = 'a' and x > 3", "b", "c"]);
    expect(found.map((s) => s.ofBefore)).toEqual([null, 0.25, 0, null]);
    expect(found.map((s) => s.ofFirst)).toEqual([1, 0.25, 0, 0]);
    expect(stages([0, 0], []).map((s) => s.ofFirst)).toEqual([null, null]);
    expect(stepName("props.kind = 'it'")).toBe("it");
  });
});

describe("lists", () => {
  const lists = [[["/a", 3], ["/b", 1]], [["/b", 4]], [["/b", 5], ["/a", 2]]];
  const points = lists.map((list, i) => [i * MINUTE, list]);
  const book = new Book({ step_ms: MINUTE, provisional_from: 2 * MINUTE, series: [{ labels: {}, points: points as never }] });
  const line = book.lines[0]!;

  it("show the newest that is closed, or what is pointed at", () => {
    expect(shownAt(book, line, null)).toBe(MINUTE);
    expect(shownAt(book, line, 2 * MINUTE + 5)).toBe(2 * MINUTE);
    expect(shownAt(book, line, 9 * MINUTE)).toBe(MINUTE);
    book.provisionalFrom = 0;
    expect(shownAt(book, line, null)).toBe(2 * MINUTE);
  });

  it("know the way of each value", () => {
    expect(ranked(line, 2 * MINUTE, 2)).toEqual([
      { value: "/b", count: 5, before: [4, 5] },
      { value: "/a", count: 2, before: [0, 2] },
    ]);
    expect(ranked(line, 7, 2)).toEqual([]);
  });

  it("have steps of at most 60 points", () => {
    for (const minutes of [1, 60, 360, 1440, 10_080, 43_200]) expect((minutes * MINUTE) / listStep(minutes * MINUTE)).toBeLessThanOrEqual(60);
  });
});

describe("percentiles", () => {
  const p99 = metric("latency_p99", "quantile(0.99, props.ms)");
  const p50 = metric("latency_p50", "QUANTILE( 0.5,  props.ms)");
  const wide = metric("latency_wide", "quantile(0.5, props.ms)", { window_ms: 5 * MINUTE });
  const other = metric("size_p50", "quantile(0.5, props.bytes)");
  const all = [p99, p50, wide, other, metric("events", "count()")];

  it("of one thing are one family, the lowest first", () => {
    expect(family(all, p99).map((m) => m.name)).toEqual(["latency_p50", "latency_p99"]);
    for (const m of [wide, other, all[4]!]) expect(family(all, m)).toEqual([m]);
  });

  it("have short names and one title", () => {
    expect([p99, p50, metric("x", "quantile(0.999, a)")].map(lineName)).toEqual(["p99", "p50", "p99.9"]);
    expect(familyTitle([p50, p99])).toBe("Latency");
    expect(familyTitle([metric("p50", "x"), metric("p99", "x")])).toBe("P50");
  });
});
