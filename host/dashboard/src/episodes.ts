// Anomalous points that follow one another are one episode: what the list shows and a card says "since" about.
import type { Anomaly, Labels, Metric } from "./contract";
import type { Line } from "./series";

export interface Episode {
  metric: Metric;
  labels: Labels;
  from: number;
  /** The last anomalous point's time. */
  to: number;
  /** The point that is farthest from what was expected. */
  worst: Anomaly;
  count: number;
}

/** Points at most this many steps apart belong together: one quiet minute does not end an incident. */
const GAP_STEPS = 5;

export function episodesOf(metric: Metric, line: Line, stepMs: number): Episode[] {
  const out: Episode[] = [];
  for (const a of line.anomalies) {
    const last = out.at(-1);
    if (last && a.t - last.to <= GAP_STEPS * stepMs) {
      last.to = a.t;
      last.count++;
      if (distance(a) > distance(last.worst)) last.worst = a;
    } else {
      out.push({ metric, labels: line.labels, from: a.t, to: a.t, worst: a, count: 1 });
    }
  }
  return out;
}

function distance(a: Anomaly): number {
  if (a.score !== null) return Math.abs(a.score);
  return a.value !== null && a.expected !== null ? Math.abs(a.value - a.expected) : 0;
}

/** Still going on: the newest point that can be judged is part of it. */
export function ongoing(episode: Episode, stepMs: number, nowMs: number): boolean {
  return nowMs - episode.to <= (GAP_STEPS + 1) * stepMs;
}

/** Newest first; of equal times the one that is farther off. */
export function newestFirst(episodes: Episode[]): Episode[] {
  return episodes.sort((a, b) => b.from - a.from || distance(b.worst) - distance(a.worst));
}
