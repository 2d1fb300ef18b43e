// A chart's data: a snapshot kept up to date by deltas, and its columns on a common time axis.
// Knows nothing of sockets or drawing.
import type { Anomaly, AnomalyMessage, Delta, Expectation, Labels, Point, SeriesAnswer } from "./contract";

export interface Line {
  labels: Labels;
  /** Ascending in time, one point a step at most. */
  points: Point[];
  anomalies: Anomaly[];
  /** What was expected, ascending in time. */
  band: Expectation[];
}

export class Book {
  lines: Line[];
  stepMs: number;
  seq: number;
  /** Which numbering of series the host began with the snapshot. */
  epoch: string | undefined;
  /** From here on points can still change; infinite where none can. */
  provisionalFrom: number;
  /** Points before it may lack events; 0 where none does. */
  completeFrom: number;

  constructor(answer: { series: SeriesAnswer[]; step_ms: number; seq?: number; epoch?: string; provisional_from?: number | null; complete_from?: number | null }) {
    this.lines = answer.series.map((s) => ({ labels: s.labels, points: s.points, anomalies: s.anomalies ?? [], band: s.band ?? [] }));
    this.stepMs = answer.step_ms;
    this.seq = answer.seq ?? 0;
    this.epoch = answer.epoch;
    this.provisionalFrom = answer.provisional_from ?? Number.POSITIVE_INFINITY;
    this.completeFrom = answer.complete_from ?? 0;
  }

  /** False when the delta does not continue from what is known: then only a new snapshot helps. */
  apply(delta: Delta): boolean {
    if (delta.prev !== this.seq) return false;
    for (const s of delta.new_series ?? []) this.lines.push({ labels: s.labels, points: [], anomalies: [], band: [] });
    for (const [index, t, value] of delta.points) {
      const line = this.lines[index];
      if (!line) return false;
      put(line.points, [t, value]);
    }
    for (const [index, ...expectation] of delta.band ?? []) {
      const line = this.lines[index];
      if (line) put(line.band, expectation);
    }
    this.seq = delta.seq;
    if (delta.provisional_from !== undefined) this.provisionalFrom = delta.provisional_from ?? Number.POSITIVE_INFINITY;
    if (delta.complete_from !== undefined) this.completeFrom = delta.complete_from ?? 0;
    return true;
  }

  mark(message: AnomalyMessage): void {
    const line = this.lines.find((l) => sameLabels(l.labels, message.labels));
    if (!line) return;
    const others = line.anomalies.filter((a) => a.t !== message.t);
    if (!message.cleared) {
      const { t, value, expected, lower, upper, score, rule } = message;
      others.push({ t, value, expected, lower, upper, score, rule });
      others.sort((a, b) => a.t - b.t);
    }
    line.anomalies = others;
  }

  /** Forgets what has left the range. */
  trim(from: number): void {
    for (const line of this.lines) {
      let n = 0;
      while (n < line.points.length && line.points[n]![0] < from) n++;
      if (n) line.points.splice(0, n);
      if (line.band.length && line.band[0]![0] < from) line.band = line.band.filter((e) => e[0] >= from);
      if (line.anomalies.length && line.anomalies[0]!.t < from) line.anomalies = line.anomalies.filter((a) => a.t >= from);
    }
  }

  get empty(): boolean {
    return this.lines.every((l) => l.points.length === 0);
  }
}

export function sameLabels(a: Labels, b: Labels): boolean {
  const names = Object.keys(a);
  return names.length === Object.keys(b).length && names.every((n) => a[n] === b[n]);
}

function put<T extends Point | Expectation>(list: T[], item: T): void {
  const at = firstAtOrAfter(list, item[0]);
  list.splice(at, list[at]?.[0] === item[0] ? 1 : 0, item);
}

function firstAtOrAfter(points: (Point | Expectation)[], t: number): number {
  let low = 0;
  let high = points.length;
  while (low < high) {
    const mid = (low + high) >> 1;
    if (points[mid]![0] < t) low = mid + 1;
    else high = mid;
  }
  return low;
}

export function valueAt(line: Line, t: number): number | null {
  const p = line.points[firstAtOrAfter(line.points, t)];
  return p && p[0] === t ? p[1] : null;
}

/** The newest point before `before`, the last one by default. */
export function lastPoint(line: Line | undefined, before = Number.POSITIVE_INFINITY): Point | null {
  if (!line) return null;
  for (let i = line.points.length - 1; i >= 0; i--) {
    const p = line.points[i]!;
    if (p[0] < before && p[1] !== null) return p;
  }
  return null;
}

/** A window this many steps long hardly sees that its last step is not over. */
const WIDE_WINDOW_STEPS = 30;

/** The point that stands for "now". A minute that has just begun would show as a fall, except where the value takes
 *  account of that: then it is the growing one, else the last one that is closed. */
export function presentPoint(book: Book, line: Line | undefined, metric: { per_ms: number | null; window_ms: number }): Point | null {
  const fair = metric.per_ms !== null || metric.window_ms >= WIDE_WINDOW_STEPS * book.stepMs;
  return lastPoint(line, fair ? Number.POSITIVE_INFINITY : book.provisionalFrom) ?? lastPoint(line);
}

/** One time axis at the step and a column for each line; `null` where there is no point. */
export function columns(lines: Line[], from: number, to: number, stepMs: number): [number[], ...(number | null)[][]] {
  const start = Math.ceil(from / stepMs) * stepMs;
  const count = Math.max(0, Math.floor((to - start) / stepMs) + 1);
  const times = Array.from({ length: count }, (_, i) => start + i * stepMs);
  const values = lines.map((line) => {
    const column: (number | null)[] = new Array(count).fill(null);
    for (let i = firstAtOrAfter(line.points, start); i < line.points.length; i++) {
      const [t, v] = line.points[i]!;
      const at = (t - start) / stepMs;
      if (at >= count) break;
      if (Number.isInteger(at)) column[at] = v;
    }
    return column;
  });
  return [times, ...values];
}

export interface Extent {
  last: number | null;
  min: number | null;
  max: number | null;
}

export function extent(line: Line, from: number, to: number): Extent {
  const out: Extent = { last: null, min: null, max: null };
  for (let i = firstAtOrAfter(line.points, from); i < line.points.length; i++) {
    const [t, v] = line.points[i]!;
    if (t > to) break;
    if (v === null) continue;
    out.last = v;
    if (out.min === null || v < out.min) out.min = v;
    if (out.max === null || v > out.max) out.max = v;
  }
  return out;
}

/** How large a line is against others of its chart: the sum of its points' sizes. */
export function weight(line: Line): number {
  let sum = 0;
  for (const [, v] of line.points) if (v !== null) sum += Math.abs(v);
  return sum;
}

/** A line's points as `n` means of equal stretches of time, for a spark line; `null` where a stretch is empty. */
export function shrink(points: Point[], from: number, to: number, n: number): (number | null)[] {
  const sums = new Array<number>(n).fill(0);
  const counts = new Array<number>(n).fill(0);
  for (const [t, v] of points) {
    if (v === null || t < from || t >= to) continue;
    const at = Math.floor(((t - from) / (to - from)) * n);
    sums[at]! += v;
    counts[at]!++;
  }
  return sums.map((s, i) => (counts[i] ? s / counts[i]! : null));
}
