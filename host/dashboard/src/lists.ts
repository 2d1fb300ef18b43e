// Values that are lists: top lists and funnels. What a point of them says; knows nothing of drawing.
import type { Metric } from "./contract";
import type { Book, Line } from "./series";
import { DAY, HOUR, MINUTE } from "./time";

export type TopList = [value: string, count: number][];

/** A list says more over a longer stretch, and there are fewer of them to send: at most 60 points. */
export function listStep(lengthMs: number): number {
  const steps = [MINUTE, 5 * MINUTE, 10 * MINUTE, 30 * MINUTE, HOUR, 3 * HOUR, 6 * HOUR];
  return steps.find((s) => lengthMs / s <= 60) ?? DAY;
}

export interface Stage {
  name: string;
  count: number;
  /** Of those at the step before; `null` for the first one and of nobody. */
  ofBefore: number | null;
  /** Of those at the first step. */
  ofFirst: number | null;
}

export function stages(counts: number[], steps: string[]): Stage[] {
  const share = (n: number, of: number | undefined): number | null => (of ? n / of : null);
  return counts.map((count, i) => ({
    name: stepName(steps[i] ?? `step ${i + 1}`),
    count,
    ofBefore: i === 0 ? null : share(count, counts[i - 1]),
    ofFirst: share(count, counts[0]),
  }));
}

/** `type = 'add_to_cart'` is `add to cart`; what is no plain comparison stays as typed. */
export function stepName(condition: string): string {
  const plain = /^[\w.]+ = '([^']+)'$/.exec(condition);
  return plain ? plain[1]!.replace(/_/g, " ") : condition;
}

export interface Ranked {
  value: string;
  count: number;
  /** Its counts at the points before, oldest first; 0 where it was not among the listed. */
  before: number[];
}

/** The list at a time, each value with its way there. */
export function ranked(line: Line, t: number, points: number): Ranked[] {
  const at = line.points.findIndex((p) => p[0] === t);
  if (at < 0) return [];
  const lists = line.points.slice(Math.max(0, at - points + 1), at + 1).map((p) => new Map(asTop(p[1])));
  return asTop(line.points[at]![1]).map(([value, count]) => ({ value, count, before: lists.map((l) => l.get(value) ?? 0) }));
}

export function asTop(value: unknown): TopList {
  return Array.isArray(value) ? (value as TopList) : [];
}

export function asCounts(value: unknown): number[] {
  return Array.isArray(value) ? (value as number[]) : [];
}

/** The time of the point that is shown: the one pointed at, else the newest that hardly changes any more. */
export function shownAt(book: Book, line: Line, pointed: number | null): number | null {
  const times = line.points.map((p) => p[0]);
  if (pointed !== null) {
    const wanted = Math.floor(pointed / book.stepMs) * book.stepMs;
    if (times.includes(wanted)) return wanted;
  }
  const closed = times.filter((t) => t < book.provisionalFrom);
  return closed.at(-1) ?? times.at(-1) ?? null;
}

/** How long a stretch a point covers. */
export function covers(metric: Metric, stepMs: number): number {
  return Math.max(metric.window_ms, stepMs);
}
