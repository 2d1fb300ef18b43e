import { describe, expect, test } from "vitest";
import { change, compact, exact, full, short, signed, tick, unitText, type Figure } from "../src/format";

const N = "\u202f";
const figure = (f: Partial<Figure>): Figure => ({ unit: null, per_ms: null, estimate: false, ...f });

describe("numbers", () => {
  test.each([
    [0, "0"],
    [7, "7"],
    [999.4, "999"],
    [999.6, "1k"],
    [1234, "1.23k"],
    [12_431, "12.4k"],
    [999_499, "999k"],
    [999_600, "1M"],
    [1_234_567, "1.23M"],
    [5.2e9, "5.2G"],
    [-1234, "−1.23k"],
    [0.8341, "0.834"],
    [0.00012, "1.2e−4"],
  ])("compact %d", (v, text) => expect(compact(v)).toBe(text));

  test.each([
    [12_431, "12,431"],
    [92.36021, "92.36"],
    [0.0123456, "0.012346"],
    [-5.5, "−5.5"],
    [-0.0000001, "0"],
  ])("exact %d", (v, text) => expect(exact(v)).toBe(text));

  test.each([
    [1_204_000, figure({ estimate: true }), "~1.2M", "~1,204,000"],
    [4102, figure({ per_ms: 1000 }), "4.1k/s", "4,102/s"],
    [12_431.2, figure({ unit: "USD" }), "$12.4k", "$12,431.20"],
    [-12_431.2, figure({ unit: "USD" }), "−$12.4k", "−$12,431.20"],
    [3.1e9, figure({ unit: "EUR" }), "€3.1B", "€3,100,000,000.00"],
    [0.0081234, figure({ unit: "%" }), `0.812${N}%`, `0.81234${N}%`],
    [850, figure({ unit: "ms" }), `850${N}ms`, `850${N}ms`],
    [1250, figure({ unit: "ms" }), `1.25${N}s`, `1.25${N}s`],
    [0.25, figure({ unit: "s" }), `250${N}ms`, `250${N}ms`],
    [1500, figure({ unit: "req", per_ms: 60_000 }), `1.5k${N}req/min`, `1,500${N}req/min`],
    [null, figure({ estimate: true }), "–", "–"],
    [Number.NaN, figure({}), "–", "–"],
  ])("%d with its unit", (v, f, card, readout) => {
    expect(short(v, f)).toBe(card);
    expect(full(v, f)).toBe(readout);
  });

  test("an axis has no tilde", () => expect(tick(30_000, figure({ estimate: true }))).toBe("30k"));
  test("the unit beside a title", () => {
    expect(unitText(figure({ unit: "USD" }))).toBe("USD");
    expect(unitText(figure({ per_ms: 1000 }))).toBe("per s");
    expect(unitText(figure({}))).toBe("");
  });
});

test.each([
  [112, 100, null, "up", `+12${N}%`, "good"],
  [112, 100, null, "down", `+12${N}%`, "bad"],
  [95.5, 100, null, "up", `−4.5${N}%`, "bad"],
  [112, 100, null, null, `+12${N}%`, "flat"],
  [0.011, 0.008, "%", "down", `+0.3${N}pp`, "bad"],
  [2300, 100, null, "down", `23${N}×`, "bad"],
  [100, 100, null, "up", `0${N}%`, "flat"],
  [100.01, 100, null, "up", `0${N}%`, "flat"],
] as const)("change from %d to %d", (after, before, unit, better, text, tone) => {
  expect(change(after, before, unit, better)).toEqual({ text, tone });
});

test("nothing to compare with is no change", () => {
  expect(change(5, null, null, "up")).toBeNull();
  expect(change(null, 5, null, "up")).toBeNull();
  expect(change(5, 0, null, "up")).toBeNull();
});

test.each([
  [348, figure({ estimate: true }), "+348"],
  [-348.2, figure({ estimate: true }), "−348"],
  [-1234.5, figure({ unit: "USD" }), "−$1.23k"],
  [0.0123, figure({ unit: "%" }), `+1.23${N}%`],
])("a change of %d is signed", (v, f, text) => expect(signed(v, f)).toBe(text));
