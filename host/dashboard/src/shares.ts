// A series as a share of the total of all. Which metrics that makes sense for; knows nothing of drawing.
import type { Metric } from "./contract";
import type { Figure } from "./format";
import type { Line } from "./series";

export const SHARE: Figure = { unit: "%", per_ms: null, estimate: false };

/** Counts and sums alone: of these the parts are together the total. */
export function addsUp(metric: Metric): boolean {
  return metric.kind === "aggregate" && metric.value === "number" && /^\s*(count|sum)\s*\([^()]*\)\s*(where\b.*)?$/is.test(metric.expression);
}

/** Points as fractions of the total's; none where that has none, or nothing to share. What was expected was of another measure. */
export function shareOf(line: Line, total: Line | undefined): Line {
  const points: Line["points"] = [];
  const all = total?.points ?? [];
  let at = 0;
  for (const [t, v] of line.points) {
    while (at < all.length && all[at]![0] < t) at++;
    const whole = all[at]?.[0] === t ? all[at]![1] : null;
    points.push([t, v === null || whole === null || whole <= 0 ? null : v / whole]);
  }
  return { labels: line.labels, points, anomalies: [], band: [] };
}
