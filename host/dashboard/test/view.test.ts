import { expect, test } from "vitest";
import { applicable, DEFAULT_VIEW, formatView, parseView, stepFor, stepText, windowAt, type View } from "../src/view";

const view = (v: Partial<View>): View => ({ ...DEFAULT_VIEW, where: {}, ...v });
const from = Date.parse("2026-11-24T12:00:00Z");

test.each([
  [view({}), ""],
  [view({ range: "7d" }), "?range=7d"],
  [view({ span: { from, to: from + 5_400_000 } }), "?from=2026-11-24T12:00Z&to=2026-11-24T13:30Z"],
  [view({ where: { device: ["mobile"], country: ["US", "DE"] } }), "?where.country=US,DE&where.device=mobile"],
  [view({ where: { city: ["Paris, TX", ""] } }), "?where.city=Paris%2C%20TX,"],
  [view({ by: "country", theme: "dark" }), "?by=country&theme=dark"],
  [view({ wall: true, range: "6h" }), "?range=6h&wall=1"],
  [view({ compare: "week" }), "?compare=week"],
  [view({ by: "device", share: true, compare: "day" }), "?by=device&share=1&compare=day"],
  [view({ where: { "a=b&c": ["x+y"] } }), "?where.a%3Db%26c=x%2By"],
])("a view and its link %#", (v, search) => {
  expect(formatView(v)).toBe(search);
  expect(parseView(search)).toEqual(v);
});

test.each(["?range=2h", "?theme=blue", "?compare=year", "?share=0", "?from=never&to=2026-11-24T13:30Z", "?from=2026-11-24T13:30Z&to=2026-11-24T12:00Z", "?by=", "?x", "?%E0=1"])(
  "%s is the default view",
  (search) => expect(parseView(search)).toEqual(view({})),
);

test("a chart has at most 1,500 points, at a step the host has", () => {
  const hour = 3_600_000;
  for (const hours of [0.1, 1, 6, 24, 25, 48, 100, 168, 169, 720]) {
    const step = stepFor(hours * hour);
    expect((hours * hour) / step).toBeLessThanOrEqual(1500);
    expect(step % 60_000).toBe(0);
  }
  expect([60_000, 600_000, hour].map(stepText)).toEqual(["1m", "10m", "1h"]);
});

test("a range ends with the growing step and is as long as it says", () => {
  const w = windowAt(view({ range: "1h" }), from + 30_500);
  expect(w).toEqual({ from: from - 59 * 60_000, to: from });
});

test("a metric follows what it has dimensions for", () => {
  const v = view({ where: { country: ["US"], device: ["tv"] }, by: "device" });
  expect(applicable(v, ["country"])).toEqual({ where: { country: ["US"] }, by: [], ignored: ["device"] });
  expect(applicable(v, ["country", "device"])).toEqual({ where: v.where, by: ["device"], ignored: [] });
});

test("a wall is asked for with or without a value", () => expect(parseView("?wall")).toEqual(parseView("?wall=1")));
