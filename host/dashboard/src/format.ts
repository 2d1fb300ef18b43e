// Numbers as people read them: three digits on cards and axes, all of them in the readout.
// Knows units, not metrics' meanings.

/** What of a metric decides how its values are written. */
export interface Figure {
  unit: string | null;
  per_ms: number | null;
  estimate: boolean;
}

const NARROW = "\u202f"; // between a number and its unit, never broken
const MINUS = "−";
const SI: [number, string][] = [
  [1e12, "T"],
  [1e9, "G"],
  [1e6, "M"],
  [1e3, "k"],
];

export const NO_VALUE = "–";

/** Three significant digits, `1.2M`, `12.4k`, `0.83`; currencies say B where SI says G. */
export function compact(v: number, billions = false): string {
  if (v < 0) return MINUS + compact(-v, billions);
  for (const [size, letter] of SI) {
    // 999.6 is already 1k once rounded to three digits
    if (v >= size * 0.9995) return digits(v / size) + (billions && letter === "G" ? "B" : letter);
  }
  return digits(v);
}

function digits(v: number): string {
  if (v === 0) return "0";
  if (v < 0.001) return v.toExponential(1).replace("e-", "e−").replace(".0e", "e");
  const s = Number(v.toPrecision(3)).toString();
  return s;
}

/** All digits that mean something: grouped, five significant where there is a fraction. */
export function exact(v: number, decimals?: number): string {
  const most = decimals ?? (Number.isInteger(v) ? 0 : Math.max(0, Math.min(6, 4 - Math.floor(Math.log10(Math.abs(v) || 1)))));
  const s = new Intl.NumberFormat("en-US", { minimumFractionDigits: decimals ?? 0, maximumFractionDigits: most }).format(Math.abs(v));
  return v < 0 && /[1-9]/.test(s) ? MINUS + s : s;
}

function currency(unit: string | null): string | null {
  if (!unit || !/^[A-Z]{3}$/.test(unit)) return null;
  try {
    const parts = new Intl.NumberFormat("en-US", { style: "currency", currency: unit, currencyDisplay: "narrowSymbol" }).formatToParts(0);
    return parts.find((p) => p.type === "currency")?.value ?? unit;
  } catch {
    return null;
  }
}

function perSuffix(per: number | null): string {
  if (per === null) return "";
  const known: Record<number, string> = { 1000: "s", 60_000: "min", 3_600_000: "h", 86_400_000: "d" };
  return `/${known[per] ?? `${per / 1000}${NARROW}s`}`;
}

const MS: Record<string, number> = { ms: 1, s: 1000 };

/** Milliseconds as `850 ms`, `1.25 s`, `3.2 min`. */
function durationText(ms: number, number: (v: number) => string): string {
  const a = Math.abs(ms);
  if (a < 1000) return `${number(ms)}${NARROW}ms`;
  if (a < 120_000) return `${number(ms / 1000)}${NARROW}s`;
  if (a < 7_200_000) return `${number(ms / 60_000)}${NARROW}min`;
  return `${number(ms / 3_600_000)}${NARROW}h`;
}

function write(v: number | null | undefined, f: Figure, number: (v: number) => string, money: (v: number) => string): string {
  if (v === null || v === undefined || !Number.isFinite(v)) return NO_VALUE;
  const per = perSuffix(f.per_ms);
  if (f.unit === "%") return `${number(v * 100)}${NARROW}%${per}`;
  const ms = f.unit === null ? undefined : MS[f.unit];
  if (ms !== undefined) return durationText(v * ms, number) + per;
  const symbol = currency(f.unit);
  if (symbol !== null) {
    const text = money(v);
    return (text.startsWith(MINUS) ? MINUS + symbol + text.slice(1) : symbol + text) + per;
  }
  return number(v) + (f.unit ? NARROW + f.unit : "") + per;
}

/** For cards: `~1.2M`, `4.1k/s`, `$12.4k`, `0.8 %`. */
export function short(v: number | null | undefined, f: Figure): string {
  const text = write(v, f, compact, (x) => compact(x, true));
  return f.estimate && text !== NO_VALUE ? `~${text}` : text;
}

/** How much a value changed, as on cards. */
export function signed(change: number, f: Figure): string {
  const text = short(change, { ...f, estimate: false });
  return change > 0 ? `+${text}` : text;
}

/** For the readout: `12,431`, `$12,431.20`, `0.8123 %`. */
export function full(v: number | null | undefined, f: Figure): string {
  const number = f.estimate ? (x: number) => exact(x, Math.abs(x) < 100 ? undefined : 0) : exact;
  const text = write(v, f, number, (x) => exact(x, 2));
  return f.estimate && text !== NO_VALUE ? `~${text}` : text;
}

/** For an axis: as on cards, without the tilde. */
export function tick(v: number, f: Figure): string {
  return write(v, f, compact, (x) => compact(x, true));
}

/** What stands beside a chart's title: the unit in words, or nothing. */
export function unitText(f: Figure): string {
  const per = perSuffix(f.per_ms).replace("/", "per ");
  return [f.unit ?? "", per].filter(Boolean).join(" ");
}

export interface Change {
  text: string;
  /** Good or bad for this metric; flat where it says neither. */
  tone: "good" | "bad" | "flat";
}

/** The change from `before` to `after`: relative, for percentages in points. Null where there is nothing to compare. */
export function change(
  after: number | null | undefined,
  before: number | null | undefined,
  unit: string | null,
  better: "up" | "down" | null,
): Change | null {
  if (after === null || after === undefined || before === null || before === undefined) return null;
  let delta: number;
  let suffix: string;
  if (unit === "%") {
    delta = (after - before) * 100;
    suffix = `${NARROW}pp`;
  } else {
    if (before === 0) return after === 0 ? { text: `0${NARROW}%`, tone: "flat" } : null;
    delta = ((after - before) / Math.abs(before)) * 100;
    suffix = `${NARROW}%`;
  }
  const size = Math.abs(delta);
  if (unit !== "%" && after / before >= 10) {
    return { text: `${compact(after / before)}\u202f×`, tone: better === null ? "flat" : better === "up" ? "good" : "bad" };
  }
  const text = compact(Number(size >= 100 ? size.toPrecision(3) : size >= 10 ? size.toFixed(0) : size.toFixed(unit === "%" ? 2 : 1)));
  if (text === "0") return { text: `0${suffix}`, tone: "flat" };
  const up = delta > 0;
  const tone = better === null ? "flat" : up === (better === "up") ? "good" : "bad";
  return { text: `${up ? "+" : MINUS}${text}${suffix}`, tone };
}

/** A dimension's value as shown: an event without one has the empty string, past the limit all are `__other__`. */
export function valueText(value: string): string {
  if (value === "") return "(none)";
  return value === "__other__" ? "(other)" : value;
}
