import { describe, expect, test } from "vitest";
import { GROUND, Places, SERIES, strokeAt, type Scheme } from "../src/palette";
import css from "../src/style/tokens.css?raw";

type Rgb = [number, number, number];
const LINE_CONTRAST_MIN = 3;
const TEXT_CONTRAST_MIN = 4.5;
/** Distance in OKLab × 100; two colours side by side are told apart from about 5. */
const DISTANCE_MIN = 9;

const linear = (hex: string): Rgb =>
  [1, 3, 5].map((i) => {
    const c = Number.parseInt(hex.slice(i, i + 2), 16) / 255;
    return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  }) as Rgb;

function contrast(a: string, b: string): number {
  const light = (hex: string): number => {
    const [r, g, bl] = linear(hex);
    return 0.2126 * r + 0.7152 * g + 0.0722 * bl + 0.05;
  };
  return Math.max(light(a), light(b)) / Math.min(light(a), light(b));
}

function oklab([r, g, b]: Rgb): Rgb {
  const l = Math.cbrt(0.4122214708 * r + 0.5363325363 * g + 0.0514459929 * b);
  const m = Math.cbrt(0.2119034982 * r + 0.6806995451 * g + 0.1073969566 * b);
  const s = Math.cbrt(0.0883024619 * r + 0.2817188376 * g + 0.6299787005 * b);
  return [
    0.2104542553 * l + 0.793617785 * m - 0.0040720468 * s,
    1.9779984951 * l - 2.428592205 * m + 0.4505937099 * s,
    0.0259040371 * l + 0.7827717662 * m - 0.808675766 * s,
  ];
}

/** Machado, Oliveira and Fernandes 2009, severity 1. */
const VISION: Record<string, Rgb[]> = {
  usual: [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
  protanopia: [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
  deuteranopia: [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
  tritanopia: [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
};

function seen(hex: string, vision: string): Rgb {
  const c = linear(hex);
  const mixed = VISION[vision]!.map((row) => Math.min(1, Math.max(0, row[0] * c[0] + row[1] * c[1] + row[2] * c[2])));
  return oklab(mixed as Rgb);
}

describe.each(["light", "dark"] as Scheme[])("%s", (scheme) => {
  test.each(SERIES[scheme])("line %s stands out from the ground", (colour) => {
    expect(contrast(colour, GROUND[scheme])).toBeGreaterThanOrEqual(LINE_CONTRAST_MIN);
  });

  test.each(Object.keys(VISION))("eight colours are eight with %s vision", (vision) => {
    const set = SERIES[scheme].map((c) => seen(c, vision));
    for (let i = 0; i < set.length; i++) {
      for (let j = 0; j < i; j++) {
        const distance = 100 * Math.hypot(...set[i]!.map((x, k) => x - set[j]![k]!));
        expect(distance, `${SERIES[scheme][i]} and ${SERIES[scheme][j]}`).toBeGreaterThan(DISTANCE_MIN);
      }
    }
  });

  test("no series is red", () => {
    for (const colour of SERIES[scheme]) {
      const [, a, b] = oklab(linear(colour));
      const hue = (Math.atan2(b, a) * 180) / Math.PI;
      const red = Math.hypot(a, b) > 0.06 && hue > -10 && hue < 50;
      expect(red, colour).toBe(false);
    }
  });

  test("text of the style sheet is legible", () => {
    const block = css.split(scheme === "light" ? ":root {" : '[data-theme="dark"] {')[1]!.split("}")[0]!;
    const token = (name: string): string => new RegExp(`--${name}: (#[0-9a-f]{6});`).exec(block)![1]!;
    expect(token("ground")).toBe(GROUND[scheme]);
    for (const ink of ["text", "text-2", "bad", "good", "warn", "accent"]) {
      for (const ground of ["ground", "raised", "hover"]) {
        expect(contrast(token(ink), token(ground)), `${ink} on ${ground}`).toBeGreaterThanOrEqual(TEXT_CONTRAST_MIN);
      }
    }
    for (const [ink, ground] of [["bad", "bad-soft"], ["text", "bad-soft"], ["accent", "accent-soft"], ["text-2", "accent-soft"], ["on-accent", "accent"]] as const) {
      expect(contrast(token(ink), token(ground)), `${ink} on ${ground}`).toBeGreaterThanOrEqual(TEXT_CONTRAST_MIN);
    }
  });
});

test("a value keeps its place, whoever asks first", () => {
  const places = new Places();
  places.seed("country", ["US", "DE"]);
  expect(places.of("country", "FR")).toBe(2);
  places.seed("country", ["FR", "US", "JP"]);
  expect(["US", "DE", "FR", "JP"].map((v) => places.of("country", v))).toEqual([0, 1, 2, 3]);
  expect(places.of("device", "tv")).toBe(0);
  expect([strokeAt(1, "dark").colour, strokeAt(9, "dark").colour]).toEqual([SERIES.dark[1], SERIES.dark[1]]);
  expect([strokeAt(1, "dark").dashed, strokeAt(9, "dark").dashed]).toEqual([false, true]);
});
