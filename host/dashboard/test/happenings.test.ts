import { expect, test } from "vitest";
import { Happenings, near, within } from "../src/happenings";

const last = (l: object) => ({ outcome: "applied" as const, at: 0, added: [], changed: [], removed: [], unchanged: [], diagnostics: [], ...l });

test("starts and changes are kept in order, each once", () => {
  const h = new Happenings();
  expect(h.started({ started_at: 1_000_000 })).toBe(true);
  expect(h.started({ started_at: 1_000_000 })).toBe(false);
  expect(h.defined({ revision: 2, applied_at: 1_050_000, last: last({ added: ["orders"], removed: ["visits"] }) }, 1_000_000)).toBe(true);
  expect(h.started({ started_at: 1_020_000 })).toBe(true);
  expect(h.list.map((x) => x.text)).toEqual(["host started", "host started", "definitions r2: +orders, −visits"]);
});

test("what a start applies is no change", () => {
  const h = new Happenings();
  expect(h.defined({ revision: 1, applied_at: 1_000_900, last: last({ added: ["a"] }) }, 1_000_000)).toBe(false);
  expect(h.list).toEqual([]);
});

test.each([
  [last({ changed: ["a", "b", "c", "d"] }), "definitions r7: 4 metrics"],
  [last({ outcome: "rejected", added: ["a"] }), "definitions r7"],
  [last({}), "definitions r7"],
])("in few words %#", (l, text) => {
  const h = new Happenings();
  h.defined({ revision: 7, applied_at: 5_000_000, last: l }, 0);
  expect(h.list[0]?.text).toBe(text);
});

test("what happens in the growing step is drawn at its beginning, what is outside is not", () => {
  const at = (t: number) => ({ t, text: "" });
  expect(within([at(9), at(10), at(95), at(109), at(110)], { from: 10, to: 100 }, 10).map((h) => h.t)).toEqual([10, 95, 100]);
});

test("a pointer need not hit the step", () => {
  const at = (t: number) => ({ t, text: "" });
  expect(near([at(100), at(120), at(140)], 110, 1, { from: 0, to: 1_500 }).map((h) => h.t)).toEqual([100, 120]);
  expect(near([at(100), at(120)], 105, 6, { from: 0, to: 150 }).map((h) => h.t)).toEqual([100]);
});
