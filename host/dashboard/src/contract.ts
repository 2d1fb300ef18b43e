// The shapes of the host's answers and live messages, as the contract states them. Types only.

export type Labels = Record<string, string>;
export type Where = Record<string, string[]>;
export type Point = [t: number, value: number | null];

export interface Anomaly {
  t: number;
  value: number | null;
  expected: number | null;
  lower: number | null;
  upper: number | null;
  score: number | null;
  rule: string;
}

/** What a rule expected at a time; `null` where it has no such bound. */
export type Expectation = [t: number, expected: number | null, lower: number | null, upper: number | null];

export interface SeriesAnswer {
  labels: Labels;
  points: Point[];
  anomalies?: Anomaly[];
  /** Of series that a rule judges. */
  band?: Expectation[];
}

export interface Metric {
  name: string;
  title: string;
  unit: string | null;
  better: "up" | "down" | null;
  kind: "aggregate" | "composite";
  expression: string;
  window_ms: number;
  per_ms: number | null;
  dimensions: string[];
  estimate: boolean;
  /** Lists stand where points have numbers: `lists.ts` reads them. */
  value: "number" | "top" | "funnel";
  /** A funnel's conditions as typed. */
  steps: string[] | null;
  zero_fill: boolean;
  /** `filling` while the host still reads what was there before the metric. */
  state: "live" | "filling";
  /** Points from here on have all their events; null where nothing was to be filled, 0 where nothing is missing. */
  complete_from: number | null;
  anomalies: { rule: string; by: string[] } | null;
  /** Where a plugin's change began new state; the revision where the host still knows it. */
  changes: { t: number; revision: number | null }[];
}

export interface Dimension {
  name: string;
  limit: number | null;
}

export interface MetricsAnswer {
  revision: number;
  refresh_ms: number;
  headline: string[];
  metrics: Metric[];
  dimensions: Dimension[];
}

export interface QueryAnswer {
  metric: string;
  unit: string | null;
  step_ms: number;
  from: number;
  to: number;
  revision: number;
  series: SeriesAnswer[];
  provisional_from?: number | null;
  complete_from?: number | null;
}

/** How much a dimension's value did for a change; `share` is of the whole change, null where parts do not add up. */
export interface Mover {
  dimension: string;
  value: string;
  actual: number | null;
  expected: number | null;
  change: number;
  share: number | null;
}

/** Why a point is what it is. Without a rule it is compared with its baseline alone. */
export interface Explanation {
  metric: string;
  expression: string;
  revision: number;
  t: number;
  step_ms: number;
  labels: Labels;
  value: number | null;
  provisional: boolean;
  rule: string | null;
  anomalous: boolean | null;
  expected: number | null;
  lower: number | null;
  upper: number | null;
  score: number | null;
  baseline: { from: number; to: number; mean: number | null };
  corrections: number;
  movers: Mover[];
  together: { labels: Labels; share: number } | null;
  left_out: string[];
  events: { time: number; event: unknown; filled: Record<string, unknown> }[];
  sentence: string;
}

export interface DimensionAnswer {
  name: string;
  values: { value: string; count: number }[];
}

export interface Diagnostic {
  file: string;
  line: number;
  column: number;
  length: number;
  message: string;
  expected: string | null;
  help: string | null;
  rendered: string;
}

export interface DefinitionsAnswer {
  revision: number;
  digest: string;
  applied_at: number;
  last: {
    outcome: "applied" | "rejected";
    at: number;
    added: string[];
    changed: string[];
    removed: string[];
    unchanged: string[];
    diagnostics: Diagnostic[];
  };
}

export interface Plugin {
  name: string;
  file: string;
  digest: string;
  kind: "enricher" | "detector";
  version: string;
  description: string;
  state: "live" | "quarantined";
  calls: number;
  rows: number;
  memo_hits: number;
  memo_misses: number;
  ns_per_row: number;
  traps: number;
  last_error: string | null;
  used_by: string[];
}

export interface RejectsAnswer {
  total: number;
  rejects: { at: number; source: string; reason: string; event: string }[];
}

export interface Status {
  version: string;
  started_at: number;
  now: number;
  ready: boolean;
  events_total: number;
  events_per_s: number;
  rejected_total: number;
  late_total: number;
  duplicates_total: number;
  lag_ms: number;
  /** What does not work, though the host is ready. */
  impaired?: string[];
  connections: number;
  seq: number;
}

export interface Snapshot {
  op: "snapshot";
  id: string;
  seq: number;
  revision: number;
  step_ms: number;
  /** Says which numbering of series this is; given back in `resume`. */
  epoch?: string;
  series: SeriesAnswer[];
  provisional_from?: number | null;
  complete_from?: number | null;
}

export interface Delta {
  op: "delta";
  id: string;
  prev: number;
  seq: number;
  points: [series: number, t: number, value: number | null][];
  new_series?: { labels: Labels }[];
  band?: [series: number, ...Expectation][];
  provisional_from?: number | null;
  complete_from?: number | null;
}

export interface AnomalyMessage extends Anomaly {
  op: "anomaly";
  id: string;
  labels: Labels;
  cleared?: boolean;
}

export interface DefinitionsMessage {
  op: "definitions";
  revision: number;
  added?: string[];
  changed?: string[];
  removed?: string[];
  rejected?: Diagnostic[];
}

/** The numbers are as old as `since`; with null they are up to date again. */
export interface StaleMessage {
  op: "stale";
  since: number | null;
  reason?: string;
}

export interface ErrorMessage {
  op: "error";
  id?: string;
  code: string;
  message: string;
}

export type LiveMessage = Snapshot | Delta | AnomalyMessage | DefinitionsMessage | StaleMessage | ErrorMessage;
