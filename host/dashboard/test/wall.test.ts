import { expect, test } from "vitest";
import { fit } from "../src/ui/wall";

test.each([
  ["all fit", 6, 1920, 800, { columns: 3, rows: 2, pages: 1 }],
  ["few are large", 2, 1920, 800, { columns: 2, rows: 1, pages: 1 }],
  ["one fills it", 1, 1920, 800, { columns: 1, rows: 1, pages: 1 }],
  ["more come in turn, evenly", 10, 1920, 800, { columns: 3, rows: 2, pages: 2 }],
  ["nothing yet", 0, 1920, 800, { columns: 1, rows: 1, pages: 1 }],
  ["a small screen shows one at a time", 5, 390, 300, { columns: 1, rows: 1, pages: 5 }],
])("%s", (_what, tiles, width, height, want) => {
  const got = fit(tiles, width, height);
  expect(got).toEqual(want);
  expect(got.columns * got.rows * got.pages).toBeGreaterThanOrEqual(tiles);
});
