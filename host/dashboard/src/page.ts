// What every part of the page may ask and do: the shared state behind it, and the one way to change the view.
import { getDimension } from "./api";
import type { Diagnostic, Metric, MetricsAnswer, Status } from "./contract";
import type { Feeds, FeedSpec } from "./feeds";
import { Happenings } from "./happenings";
import type { Hover } from "./hover";
import { listStep } from "./lists";
import { Places, type Scheme } from "./palette";
import { addsUp } from "./shares";
import { now } from "./time";
import { applicable, rangeMs, stepFor, windowAt, type View } from "./view";

/** Of a dimension with more values only this many, the most frequent, are asked for when charts are split by it. */
const SPLIT_VALUES_MAX = 40;

const LAST_DAY = { stepMs: stepFor(rangeMs("24h")), live: { range: "24h", rangeMs: rangeMs("24h") } };

export interface DimensionValue {
  value: string;
  count: number;
}

export interface Connection {
  up: boolean;
  /** When something last came from the host. */
  heardAt: number;
  /** Since when the connection is lost; 0 while it holds. */
  downSince: number;
}

/** A point of one line of a chart, of which somebody wants to know why. */
export interface Asked {
  metric: Metric;
  /** What the line is called where there are several. */
  name: string | null;
  colour: string;
  by: string[];
  where: FeedSpec["where"];
  stepMs: number;
  t: number;
}

export class Page {
  view: View;
  catalog: MetricsAnswer = { revision: 0, refresh_ms: 10_000, headline: [], metrics: [], dimensions: [] };
  status: Status | null = null;
  rejected: { at: number; diagnostics: Diagnostic[] } | null = null;
  /** Since when and why the numbers are not brought up to date. */
  stale: { since: number; reason: string } | null = null;
  connection: Connection = { up: false, heardAt: now(), downSince: 0 };
  readonly happenings = new Happenings();
  readonly places = new Places();
  readonly feeds: Feeds;
  readonly hover: Hover;
  /** Changes the view; the new one goes to the URL and, with `push`, becomes a step that Back undoes. */
  navigate: (change: Partial<View>, push?: boolean) => Promise<void> = async () => {};
  /** Back to what was looked at before the last zoom. */
  zoomOut: () => void = () => {};
  /** Brings a metric's chart into sight; with `only`, that one of its lines. */
  showMetric: (name: string, only?: string) => void = () => {};
  /** Opens the panel that says why a point is what it is. */
  explain: (asked: Asked) => void = () => {};
  /** The point that the panel is about. */
  asked: Asked | null = null;
  #values = new Map<string, DimensionValue[]>();
  #frequent = new Map<string, string[]>();
  #held: { from: number; to: number } | null = null;

  constructor(view: View, feeds: Feeds, hover: Hover) {
    this.view = view;
    this.feeds = feeds;
    this.hover = hover;
  }

  get scheme(): Scheme {
    if (this.view.wall) return "dark";
    if (this.view.theme !== "system") return this.view.theme;
    return matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
  }

  metric(name: string): Metric | undefined {
    return this.catalog.metrics.find((m) => m.name === name);
  }

  get headline(): Metric[] {
    return this.catalog.headline.map((n) => this.metric(n)).filter((m): m is Metric => m !== undefined);
  }

  /** The drawn piece of time; stands still while someone points at a chart. */
  window(): { from: number; to: number } {
    // Without a connection nothing comes: the page stays as it was.
    const fresh = windowAt(this.view, this.connection.downSince || now());
    if (!this.hover.holding || !this.#held || this.view.span) this.#held = fresh;
    return this.#held;
  }

  /** A changed view is drawn at once, pointed at or not. */
  release(): void {
    this.#held = null;
  }

  /** Loads a dimension's values once and gives them their colours; fresh ones on demand. */
  async values(dimension: string, fresh = false): Promise<DimensionValue[]> {
    const known = this.#values.get(dimension);
    if (known && !fresh) return known;
    const { values } = await getDimension(dimension);
    this.#values.set(dimension, values);
    this.places.seed(dimension, values.map((v) => v.value));
    return values;
  }

  /** What a chart of this metric shows under the present view. */
  chartSpec(metric: Metric): FeedSpec {
    const { where, by } = applicable(this.view, metric.dimensions);
    return this.#spec(metric, by, this.#narrowed(by, where));
  }

  /** Of all values of the split together, those that are not drawn included; `null` where the metric is not shown as shares. */
  totalSpec(metric: Metric): FeedSpec | null {
    const { where, by } = applicable(this.view, metric.dimensions);
    return this.view.share && by.length && addsUp(metric) ? this.#spec(metric, [], where) : null;
  }

  /** The total of a metric whose value is a list, filtered, at steps that are long enough to say something. */
  listSpec(metric: Metric): FeedSpec {
    const { where } = applicable(this.view, metric.dimensions);
    return this.#spec(metric, [], where, listStep);
  }

  /** The series that a metric's anomaly rule judges, over the last 24 hours whatever is looked at. */
  judgedSpec(metric: Metric): FeedSpec {
    const by = metric.anomalies?.by ?? [];
    return { metric: metric.name, by, where: this.#narrowed(by, {}), ...LAST_DAY };
  }

  /** The last 24 hours at one minute, filtered: for cards. */
  cardSpec(metric: Metric): FeedSpec {
    const { where } = applicable(this.view, metric.dimensions);
    return { metric: metric.name, by: [], where, ...LAST_DAY };
  }

  /** How many values of the split are left out of the answers. */
  leftOut(dimension: string): number {
    return Math.max(0, (this.#values.get(dimension)?.length ?? 0) - SPLIT_VALUES_MAX);
  }

  #spec(metric: Metric, by: string[], where: FeedSpec["where"], step = stepFor): FeedSpec {
    const { span, range } = this.view;
    const base = { metric: metric.name, by, where };
    if (span) {
      const stepMs = step(span.to - span.from);
      return { ...base, stepMs, span: { from: Math.floor(span.from / stepMs) * stepMs, to: Math.ceil(span.to / stepMs) * stepMs } };
    }
    return { ...base, stepMs: step(rangeMs(range)), live: { range, rangeMs: rangeMs(range) } };
  }

  /** The same values each time, though counts move: else every look at the counts would ask for all charts anew. */
  #narrowed(by: string[], where: FeedSpec["where"]): FeedSpec["where"] {
    const out = { ...where };
    for (const d of by) {
      const values = this.#values.get(d);
      if (!values || values.length <= SPLIT_VALUES_MAX || out[d]) continue;
      let most = this.#frequent.get(d);
      if (!most) this.#frequent.set(d, (most = values.slice(0, SPLIT_VALUES_MAX).map((v) => v.value)));
      out[d] = most;
    }
    return out;
  }
}
