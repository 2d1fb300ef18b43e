// Quantiles of one thing belong into one chart. Which metrics are of one family; knows nothing of drawing.
import type { Metric } from "./contract";

/** `quantile(0.95, props.ms) where …`: which one, and of what. */
function read(metric: Metric): { q: number; of: string } | null {
  const found = /^\s*quantile\s*\(\s*([\d.]+)\s*,(.*)$/is.exec(metric.expression);
  return found ? { q: Number(found[1]), of: found[2]!.replace(/\s+/g, " ").trim() } : null;
}

/** The metric and those that differ in the quantile alone, the lowest first; only itself where there are none. */
export function family(all: Metric[], metric: Metric): Metric[] {
  const own = read(metric);
  if (!own) return [metric];
  const key = (m: Metric, of: string): string => JSON.stringify([of, m.window_ms, m.per_ms, m.unit, m.dimensions]);
  const wanted = key(metric, own.of);
  const kin = all.flatMap((m) => {
    const other = read(m);
    return other && key(m, other.of) === wanted ? [{ m, q: other.q }] : [];
  });
  return kin.length < 2 ? [metric] : kin.sort((a, b) => a.q - b.q).map((k) => k.m);
}

/** `p95`, `p99.9` */
export function lineName(metric: Metric): string {
  const own = read(metric);
  return own ? `p${Number((own.q * 100).toPrecision(6))}` : metric.title;
}

/** What the titles have in common, without the percentiles themselves: `Latency p50`, `Latency p95` are `Latency`. */
export function familyTitle(metrics: Metric[]): string {
  const [first = "", ...others] = metrics.map((m) => m.title);
  let length = first.length;
  for (const o of others) while (length && !o.startsWith(first.slice(0, length))) length--;
  return first.slice(0, length).replace(/[\s_(]*(p|\d|\.)*$/i, "").trim() || first;
}
