// What charts are compared with. Minutes are kept for 7 days: what is older comes by the hour, and is brought to the chart's
// step where an hour says something about it. Knows nothing of drawing.
import type { Metric } from "./contract";
import type { FeedSpec } from "./feeds";
import type { Line } from "./series";
import { addsUp } from "./shares";
import { DAY, HOUR } from "./time";

const MINUTES_KEPT_MS = 7 * DAY;

/** The same some time before. Of a range that moves on an hour more is asked for, so that it is asked for seldom. */
export function pastSpec(spec: FeedSpec, beforeMs: number, nowMs: number): FeedSpec {
  const { live, span, ...subject } = spec;
  const hour = (t: number): number => Math.floor(t / HOUR) * HOUR;
  const from = (span ? span.from : hour(nowMs) - (live?.rangeMs ?? 0)) - beforeMs;
  const to = (span ? span.to : hour(nowMs) + HOUR) - beforeMs;
  if (from > hour(nowMs) + HOUR - MINUTES_KEPT_MS) return { ...subject, span: { from, to } };
  return { ...subject, stepMs: Math.max(HOUR, spec.stepMs), span: { from: hour(from) - HOUR, to: hour(to) + HOUR } };
}

/** By what values of an hour are multiplied to compare with such of `stepMs`; `null` where an hour does not say. */
export function scaleOf(metric: Metric, stepMs: number, coarseMs: number): number | null {
  const width = Math.max(metric.window_ms, stepMs);
  if (width >= coarseMs || metric.per_ms !== null || metric.unit === "%") return 1;
  if (addsUp(metric)) return width / coarseMs;
  return metric.kind === "aggregate" && (/^\s*(avg|quantile)\s*\(/i.test(metric.expression) || metric.expression.includes("/")) ? 1 : null;
}

/** A line of hours as one of steps: each value stands in the middle of its hour, and lines go between. `widthMs`: what a point of
 *  the chart covers, to the end of its step. */
export function refine(line: Line, stepMs: number, coarseMs: number, widthMs: number, scale: number): Line {
  const shift = coarseMs / 2 - stepMs + Math.min(widthMs, coarseMs) / 2;
  const points: Line["points"] = [];
  line.points.forEach(([t, v], i) => {
    const next = line.points[i + 1];
    if (v === null || !next || next[1] === null || next[0] - t > coarseMs) return;
    const [start, end] = [t + shift, next[0] + shift];
    for (let at = Math.ceil(start / stepMs) * stepMs; at < end; at += stepMs) points.push([at, (v + ((next[1] - v) * (at - start)) / coarseMs) * scale]);
  });
  return { labels: line.labels, points, anomalies: [], band: [] };
}
