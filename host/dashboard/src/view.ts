// What the reader looks at, and its two forms: the state and the URL. A link shows the same view.
import type { Where } from "./contract";
import { DAY, HOUR, MINUTE } from "./time";

export const RANGES = ["1h", "6h", "24h", "7d", "30d"] as const;
export type Range = (typeof RANGES)[number];
export type Theme = "light" | "dark" | "system";

/** What charts are compared with. */
export const COMPARISONS = ["day", "week"] as const;
export type Comparison = (typeof COMPARISONS)[number];

export interface View {
  range: Range;
  /** A chosen piece of time, instead of the range that ends now. */
  span: { from: number; to: number } | null;
  where: Where;
  by: string | null;
  /** Counts and sums that are split, as shares of their total. */
  share: boolean;
  /** Drawn as faint lines behind the others. */
  compare: Comparison | null;
  theme: Theme;
  /** Without controls, dark, everything within the screen. */
  wall: boolean;
}

export const DEFAULT_VIEW: View = { range: "24h", span: null, where: {}, by: null, share: false, compare: null, theme: "system", wall: false };

const RANGE_MS: Record<Range, number> = { "1h": HOUR, "6h": 6 * HOUR, "24h": DAY, "7d": 7 * DAY, "30d": 30 * DAY };
const COMPARED: Record<Comparison, { ms: number; name: string }> = { day: { ms: DAY, name: "yesterday" }, week: { ms: 7 * DAY, name: "last week" } };
const FILTER = "where.";

export function rangeMs(range: Range): number {
  return RANGE_MS[range];
}

/** How long before, and how people call it. */
export function compared(c: Comparison): { ms: number; name: string } {
  return COMPARED[c];
}

/** The step at which a chart of that length is drawn: at most about 1,500 points. */
export function stepFor(lengthMs: number): number {
  if (lengthMs <= DAY) return MINUTE;
  if (lengthMs <= 2 * DAY) return 5 * MINUTE;
  if (lengthMs <= 7 * DAY) return 10 * MINUTE;
  return HOUR;
}

/** A step as the host reads it: `1m`, `10m`, `1h`. */
export function stepText(stepMs: number): string {
  return stepMs % HOUR === 0 ? `${stepMs / HOUR}h` : `${stepMs / MINUTE}m`;
}

/** The drawn piece of time; a range ends with the step that is still growing. */
export function windowAt(view: View, nowMs: number): { from: number; to: number } {
  if (view.span) return view.span;
  const length = rangeMs(view.range);
  const step = stepFor(length);
  const to = Math.floor(nowMs / step) * step;
  return { from: to - length + step, to };
}

/** A time in the URL: readable, to the minute, in UTC. */
function timeText(t: number): string {
  return new Date(t).toISOString().replace(/:\d\d\.\d+Z$/, "Z");
}

function readTime(text: string): number {
  const minutes = /^(\d{4}-\d\d-\d\dT\d\d:\d\d)Z$/.exec(text);
  return minutes ? Date.parse(`${minutes[1]}:00Z`) : Date.parse(text);
}

function decode(text: string): string {
  try {
    return decodeURIComponent(text.replace(/\+/g, " "));
  } catch {
    return text;
  }
}

/** Values are split at commas before they are decoded, as the host does. */
export function parseView(search: string): View {
  const view: View = { ...DEFAULT_VIEW, where: {} };
  let from = Number.NaN;
  let to = Number.NaN;
  for (const part of search.replace(/^\?/, "").split("&")) {
    const cut = part.indexOf("=");
    if (part === "wall" || part === "wall=1") view.wall = true;
    if (cut < 0) continue;
    const name = decode(part.slice(0, cut));
    const raw = part.slice(cut + 1);
    if (name === "range" && (RANGES as readonly string[]).includes(raw)) view.range = raw as Range;
    else if (name === "from") from = readTime(decode(raw));
    else if (name === "to") to = readTime(decode(raw));
    else if (name === "by" && raw) view.by = decode(raw);
    else if (name === "share" && raw === "1") view.share = true;
    else if (name === "compare" && (COMPARISONS as readonly string[]).includes(raw)) view.compare = raw as Comparison;
    else if (name === "theme" && (raw === "light" || raw === "dark")) view.theme = raw;
    else if (name.startsWith(FILTER)) {
      const values = raw.split(",").map(decode);
      view.where[name.slice(FILTER.length)] = [...new Set(values)];
    }
  }
  if (to - from >= MINUTE) view.span = { from, to };
  return view;
}

/** The shortest search string that parses to this view; empty for the default view. */
export function formatView(view: View): string {
  const parts: string[] = [];
  if (view.range !== DEFAULT_VIEW.range) parts.push(`range=${view.range}`);
  if (view.span) parts.push(`from=${timeText(view.span.from)}`, `to=${timeText(view.span.to)}`);
  for (const name of Object.keys(view.where).sort()) {
    const values = view.where[name] ?? [];
    if (values.length) parts.push(`${encodeURIComponent(FILTER + name)}=${values.map(encodeURIComponent).join(",")}`);
  }
  if (view.by) parts.push(`by=${encodeURIComponent(view.by)}`);
  if (view.share) parts.push("share=1");
  if (view.compare) parts.push(`compare=${view.compare}`);
  if (view.theme !== "system") parts.push(`theme=${view.theme}`);
  if (view.wall) parts.push("wall=1");
  return parts.length ? `?${parts.join("&")}` : "";
}

/** The part of the filters and the split that a metric with these dimensions can follow, and what it cannot. */
export function applicable(view: View, dimensions: string[]): { where: Where; by: string[]; ignored: string[] } {
  const where: Where = {};
  const ignored: string[] = [];
  for (const [name, values] of Object.entries(view.where)) {
    if (dimensions.includes(name)) where[name] = values;
    else ignored.push(name);
  }
  return { where, by: view.by && dimensions.includes(view.by) ? [view.by] : [], ignored };
}
