// What stands where on a chart, as plain numbers: ranges, labels, runs. Knows no canvas.
import type { Expectation } from "./contract";
import { DAY, hourMinute, monthDay } from "./time";

/** The values' axis: counts begin at zero, others stand in the middle with some room. */
export function valueRange(low: number | null, high: number | null, fromZero: boolean): [number, number] {
  const min = low ?? 0;
  const max = high ?? 0;
  if (fromZero) {
    const floor = Math.min(0, min);
    return [floor, max <= 0 && floor === 0 ? 1 : max + (max - floor) * 0.08];
  }
  const room = (max - min) * 0.12 || Math.abs(max) * 0.1 || 1;
  return [min >= 0 ? Math.max(0, min - room) : min - room, max + room];
}

/** The least and the most of columns and of what is known already. */
export function extremes(columns: (number | null)[][], low: number | null, high: number | null): [number | null, number | null] {
  for (const column of columns) {
    for (const v of column) {
      if (v === null) continue;
      if (low === null || v < low) low = v;
      if (high === null || v > high) high = v;
    }
  }
  return [low, high];
}

/** A tick of the time axis: the date where a day begins, else the time. */
export function timeLabel(t: number, incrementMs: number): string {
  const d = new Date(t);
  return incrementMs >= DAY || (d.getHours() === 0 && d.getMinutes() === 0) ? monthDay(t) : hourMinute(t);
}

/** Expectations of the drawn time that follow one another step by step. */
export function runs(band: Expectation[], window: { from: number; to: number }, stepMs: number): Expectation[][] {
  const out: Expectation[][] = [];
  for (const e of band) {
    const [t, , lower, upper] = e;
    if ((lower === null && upper === null) || t < window.from - stepMs || t > window.to + stepMs) continue;
    const run = out.at(-1);
    if (run && t - run.at(-1)![0] <= stepMs) run.push(e);
    else out.push([e]);
  }
  return out;
}

/** A point between two gaps makes no line: these are drawn as dots. */
export function lonely(column: ArrayLike<number | null | undefined>): number[] {
  const none = (i: number): boolean => column[i] === null || column[i] === undefined;
  const out: number[] = [];
  for (let i = 0; i < column.length; i++) if (!none(i) && none(i - 1) && none(i + 1)) out.push(i);
  return out;
}
