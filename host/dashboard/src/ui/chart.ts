// One metric's chart: title, readout, plot, legend, and a summary in words. Chooses which lines are drawn.
import type { Metric } from "../contract";
import { full, unitText, valueText } from "../format";
import { soon } from "../frame";
import type { Feed } from "../feeds";
import type { Page } from "../page";
import { strokeAt, type Stroke } from "../palette";
import { family, familyTitle, lineName } from "../percentiles";
import { columns, extent, presentPoint, valueAt, weight, type Line } from "../series";
import { nearTime } from "../time";
import { applicable } from "../view";
import { h, setText } from "./dom";
import { Legend } from "./legend";
import { Plot, type Mark, type PlotModel } from "./plot";

const LINES_MAX = 8;
const PATIENCE_MS = 700; // an answer that comes sooner needs no word

export interface Pick extends Stroke {
  key: string;
  name: string;
  metric: Metric;
  line: Line;
}

export class Chart {
  readonly el: HTMLElement;
  metric: Metric;
  #page: Page;
  #feed: { feed: Feed; close(): void } | null = null;
  /** Other percentiles of the same, drawn into this chart. */
  #kin: { metric: Metric; feed: Feed; close(): void }[] = [];
  #specKey = "";
  #plot: Plot | null = null;
  #plotKey = "";
  #picks: Pick[] = [];
  #hidden = 0;
  #isolated = new Set<string>();
  #order = new Map<string, number>();
  #visible = false;
  #dirty = true;
  #nearest: number | null = null;
  #title = h("h3", {});
  #unit = h("span", { class: "unit" });
  #note = h("span", { class: "note" });
  #readout = h("output", { class: "readout", "aria-live": "off" });
  #canvas: HTMLElement;
  #message = h("p", { class: "chart-message", hidden: true });
  #legend: Legend;
  #stop: () => void;
  #sizes: ResizeObserver;
  #sight: IntersectionObserver;

  constructor(page: Page, metric: Metric) {
    this.#page = page;
    this.metric = metric;
    this.#canvas = h("div", { class: "plot", tabindex: 0, role: "img" });
    this.#legend = new Legend((key, add) => this.#isolate(key, add));
    this.el = h(
      "section",
      { class: "chart", id: `chart-${metric.name}`, "data-metric": metric.name },
      h("header", {}, h("div", { class: "chart-title" }, this.#title, this.#unit, this.#note), this.#readout),
      h("div", { class: "plot-frame" }, this.#canvas, this.#message),
      this.#legend.el,
    );
    this.#canvas.addEventListener("keydown", (e) => this.#key(e));
    this.#canvas.addEventListener("focus", () => this.#readout.setAttribute("aria-live", "polite"));
    this.#canvas.addEventListener("blur", () => {
      this.#readout.setAttribute("aria-live", "off");
      if (page.hover.source === this) page.hover.set(null, this);
    });
    this.#stop = page.hover.listen((t, source) => this.#pointedAt(t, source));
    this.#sizes = new ResizeObserver(() => soon(this.#resize));
    this.#sizes.observe(this.#canvas);
    this.#sight = new IntersectionObserver((entries) => {
      this.#visible = entries.at(-1)!.isIntersecting;
      if (this.#visible && this.#dirty) soon(this.#draw);
    }, { rootMargin: "200px" });
    this.#sight.observe(this.el);
    this.describe(metric);
  }

  /** The metric's own words; its data may stay. */
  describe(metric: Metric): void {
    this.metric = metric;
    setText(this.#unit, unitText(metric));
    this.#title.title = `${metric.name} = ${metric.expression}`;
    this.follow();
  }

  /** Shows what the view asks for. */
  follow(): void {
    const spec = this.#page.chartSpec(this.metric);
    // Split, each has a chart of its own.
    const metrics = spec.by.length ? [this.metric] : family(this.#page.catalog.metrics, this.metric);
    const leads = metrics[0]!.name === this.metric.name;
    this.el.hidden = !leads;
    setText(this.#title, metrics.length > 1 ? familyTitle(metrics) : this.metric.title);
    const kin = (leads ? metrics.slice(1) : []).map((metric) => ({ metric, spec: this.#page.chartSpec(metric) }));
    const { ignored } = applicable(this.#page.view, this.metric.dimensions);
    const by = this.#page.view.by;
    const notes = ignored.map((d) => `not filtered by ${d}`);
    if (by && !this.metric.dimensions.includes(by)) notes.push(`not split by ${by}`);
    setText(this.#note, notes.join(", "));
    const key = JSON.stringify([spec, ...kin.map((k) => k.spec)]);
    if (key !== this.#specKey) {
      this.#specKey = key;
      if (JSON.stringify(spec.by) !== JSON.stringify(this.#feed?.feed.spec.by)) {
        this.#isolated.clear();
        this.#order.clear();
      }
      this.#feed?.close();
      this.#kin.forEach((k) => k.close());
      const mine = this.#page.feeds.open(spec, this.changed);
      this.#feed = mine;
      this.#kin = kin.map((k) => ({ metric: k.metric, ...this.#page.feeds.open(k.spec, this.changed) }));
      setTimeout(() => {
        if (this.#feed === mine && !mine.feed.book && !mine.feed.error && !this.#plot) this.#say("Loading");
      }, PATIENCE_MS);
    }
    this.changed();
  }

  changed = (): void => {
    this.#dirty = true;
    if (this.#visible) soon(this.#draw);
  };

  /** Colours are other ones now. */
  recolour(): void {
    this.#plotKey = "";
    this.changed();
  }

  /** Brings it into sight; with `only`, shows that one of its lines. */
  focus(only?: string): void {
    if (this.el.hidden) return this.#page.showMetric(family(this.#page.catalog.metrics, this.metric)[0]!.name);
    if (only !== undefined) {
      this.#isolated = new Set([only]);
      this.changed();
    }
    const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
    this.el.scrollIntoView({ behavior: calm ? "auto" : "smooth", block: "center" });
    this.#canvas.focus({ preventScroll: true });
  }

  close(): void {
    this.#feed?.close();
    this.#kin.forEach((k) => k.close());
    this.#stop();
    this.#sizes.disconnect();
    this.#sight.disconnect();
    this.#plot?.destroy();
    this.el.remove();
  }

  #draw = (): void => {
    this.#dirty = false;
    const feed = this.#feed?.feed;
    if (!feed) return;
    if (feed.error) this.#say(feed.error);
    // Before the answer: the new piece of time with the data there is.
    if (!feed.book) {
      if (this.#plot) this.#plot.update({ ...this.#plot.model, window: this.#page.window() }, false);
      return;
    }
    this.#choose(feed);
    const window = this.#page.window();
    const model = this.#model(feed, window);
    const key = JSON.stringify([this.#picks.map((p) => [p.key, p.colour]), this.#page.scheme, this.metric.unit]);
    if (key !== this.#plotKey) {
      this.#plotKey = key;
      this.#plot?.destroy();
      this.#plot = new Plot(this.#canvas, model, {
        point: (t, nearest) => {
          this.#nearest = nearest;
          if (this.#page.hover.t === t) this.#readValues(t);
          this.#page.hover.set(t, this);
        },
        zoom: (from, to) => this.#page.navigate({ span: minutes(from, to) }),
        choose: () => this.#explain(),
        zoomed: () => this.#page.view.span !== null,
        zoomOut: () => this.#page.zoomOut(),
      });
    } else {
      // Another piece of time is drawn to its own scale, pointed at or not.
      const before = this.#plot!.model.window;
      this.#plot!.update(model, this.#page.hover.holding && before.from === window.from && before.to === window.to);
    }
    if (!feed.error) this.#say(feed.book.empty ? "No events in this time" : "");
    this.#legend.show(this.#picks, this.#isolated, this.#hidden);
    this.#readValues(this.#page.hover.t);
    this.#summarise(window);
  };

  #model(feed: Feed, window: { from: number; to: number }): PlotModel {
    const book = feed.book!;
    const [times, ...values] = columns(this.#picks.map((p) => p.line), window.from, window.to, book.stepMs);
    return {
      figure: this.metric,
      fromZero: this.metric.zero_fill || this.metric.unit === "%" || this.metric.per_ms !== null,
      stepMs: book.stepMs,
      times,
      lines: this.#picks.map((p, i) => ({ ...p, anomalies: p.line.anomalies, band: p.line.band, column: values[i]! })),
      provisionalFrom: book.provisionalFrom,
      marks: this.#marks(window),
      asked: this.#picks.some((p) => p.metric.name === this.#page.asked?.metric.name) ? this.#page.asked!.t : null,
      window,
    };
  }

  /** Where the metric's meaning changed with a plugin, and where it is complete from. */
  #marks(window: { from: number; to: number }): Mark[] {
    const marks = this.metric.changes.map(({ t, revision }) => ({ t, text: revision === null ? "plugin changed" : `plugin changed, r${revision}` }));
    const complete = this.#complete(window);
    return complete === null ? marks : [...marks, complete];
  }

  /** What is to be said where points of this piece of time may lack events. */
  #complete(window: { from: number; to: number }): Mark | null {
    const t = this.#feed?.feed.book?.completeFrom ?? 0;
    if (t <= window.from) return null;
    return t > window.to ? { t: window.to, text: `complete from ${nearTime(t)} on` } : { t, text: `complete back to ${nearTime(t)}` };
  }

  /** The largest lines, or the isolated ones. Whoever came first keeps its rank, so that nothing jumps. */
  #choose(feed: Feed): void {
    const book = feed.book!;
    const dimension = feed.spec.by[0];
    const lines = book.lines.filter((l) => l.points.length);
    if (dimension === undefined) {
      const own = { metric: this.metric, line: lines[0] };
      const all = [own, ...this.#kin.map((k) => ({ metric: k.metric, line: k.feed.book?.lines[0] }))];
      const name = (m: Metric): string => (all.length > 1 ? lineName(m) : m.title);
      const pick = (k: (typeof all)[number], i: number): Pick[] =>
        k.line ? [{ key: i ? k.metric.name : "", name: name(k.metric), metric: k.metric, line: k.line, ...strokeAt(i, this.#page.scheme) }] : [];
      const picks = all.flatMap(pick);
      const chosen = picks.filter((p) => this.#isolated.has(p.key));
      this.#picks = chosen.length ? chosen : picks;
      this.#legend.list(picks, []);
      this.#hidden = 0;
      return;
    }
    const key = (l: Line): string => l.labels[dimension] ?? "";
    // The largest of a ratio or a mean would be the rarest, with the most noise: there the most frequent are shown.
    const counts = this.metric.kind === "aggregate" && this.metric.zero_fill;
    const rank = counts ? (l: Line): number => -weight(l) : (l: Line): number => this.#page.places.of(dimension, key(l));
    const fresh = lines.filter((l) => !this.#order.has(key(l))).sort((a, b) => rank(a) - rank(b));
    for (const l of fresh) this.#order.set(key(l), this.#order.size);
    const ranked = lines.sort((a, b) => this.#order.get(key(a))! - this.#order.get(key(b))!);
    const chosen = ranked.filter((l) => this.#isolated.has(key(l)));
    const shown = chosen.length ? chosen : ranked.slice(0, LINES_MAX);
    const listed = chosen.length ? ranked.filter((l, i) => i < LINES_MAX || this.#isolated.has(key(l))) : shown;
    const pick = (l: Line): Pick => {
      const place = this.#page.places.of(dimension, key(l));
      return { key: key(l), name: valueText(key(l)), metric: this.metric, line: l, ...strokeAt(place, this.#page.scheme) };
    };
    this.#picks = shown.map(pick);
    this.#legend.list(listed.map(pick), ranked.slice(LINES_MAX).map(pick));
    this.#hidden = lines.length - Math.min(lines.length, LINES_MAX) + this.#page.leftOut(dimension);
  }

  #isolate(key: string, add: boolean): void {
    const now = this.#isolated;
    if (add) {
      if (!now.delete(key)) now.add(key);
    } else if (now.size === 1 && now.has(key)) {
      now.clear();
    } else {
      now.clear();
      now.add(key);
    }
    this.changed();
  }

  #say(text: string): void {
    setText(this.#message, text);
    this.#message.hidden = text === "";
  }

  #pointedAt(t: number | null, source: unknown): void {
    if (!this.#plot || !this.#visible) return;
    if (source !== this) {
      this.#nearest = null;
      this.#plot.crosshair(t);
    }
    this.#readValues(t);
    if (t === null && this.#dirty) soon(this.#draw);
  }

  /** Values under the crosshair, else the last ones. */
  #readValues(t: number | null): void {
    const book = this.#feed?.feed.book;
    const value = (p: Pick): number | null => (t === null ? (book ? (presentPoint(book, p.line, this.metric)?.[1] ?? null) : null) : valueAt(p.line, t));
    this.#legend.values(this.#picks.map((p) => full(value(p), this.metric)));
    const one = this.#picks.length === 1 ? this.#picks[0] : this.#nearest === null ? undefined : this.#picks[this.#nearest];
    this.#legend.mark(this.#picks.length > 1 && t !== null ? (one?.key ?? null) : null);
    const parts: Node[] = [];
    if (t !== null) parts.push(h("span", { class: "when" }, nearTime(t)));
    if (one) {
      if (this.#picks.length > 1) parts.push(h("span", { class: "who" }, one.name));
      parts.push(h("b", {}, full(value(one), this.metric)));
    }
    this.#readout.replaceChildren(...parts);
  }

  /** The line pointed at, or the only one, or the first that has a value there. */
  #pointedLine(t: number): Pick | undefined {
    const nearest = this.#nearest === null ? undefined : this.#picks[this.#nearest];
    return nearest ?? this.#picks.find((p) => valueAt(p.line, t) !== null) ?? this.#picks[0];
  }

  /** Asks why the point under the crosshair, else the present one, is what it is. */
  #explain(): void {
    const feed = this.#feed?.feed;
    const first = this.#picks[0];
    if (!feed?.book || !first) return;
    const t = this.#page.hover.t ?? presentPoint(feed.book, first.line, this.metric)?.[0];
    const pick = t === undefined ? undefined : this.#pointedLine(t);
    if (t === undefined || !pick) return;
    const { by, where } = feed.spec;
    const one = Object.fromEntries(Object.entries(pick.line.labels).map(([d, value]) => [d, [value]]));
    const name = this.#picks.length > 1 || by.length ? pick.name : null;
    this.#page.explain({ metric: pick.metric, name, colour: pick.colour, by, where: { ...where, ...one }, stepMs: feed.book.stepMs, t });
  }

  #summarise(window: { from: number; to: number }): void {
    const words = this.#picks.map((p) => {
      const e = extent(p.line, window.from, window.to);
      const [last, min, max] = [e.last, e.min, e.max].map((v) => full(v, this.metric));
      const odd = p.line.anomalies.filter((a) => a.t >= window.from && a.t <= window.to).length;
      return `${p.name}: last ${last}, minimum ${min}, maximum ${max}, ${odd === 1 ? "1 anomaly" : `${odd || "no"} anomalies`}`;
    });
    const complete = this.#complete(window);
    if (words.length && complete !== null) words.push(complete.text);
    const text = words.length ? words.join(". ") : `${this.metric.title}: no data`;
    if (this.#canvas.getAttribute("aria-label") !== text) this.#canvas.setAttribute("aria-label", text);
  }

  #resize = (): void => {
    this.#plot?.resize(this.#canvas.clientWidth, this.#canvas.clientHeight);
  };

  /** To the line above or below. */
  #step(t: number, up: 1 | -1): void {
    const at = this.#picks.map((p, i) => ({ i, v: valueAt(p.line, t) })).filter((x): x is { i: number; v: number } => x.v !== null);
    at.sort((a, b) => a.v - b.v);
    const now = at.findIndex((x) => x.i === this.#nearest);
    const next = now < 0 ? at.at(up === 1 ? 0 : -1) : at[Math.max(0, Math.min(at.length - 1, now + up))];
    this.#nearest = next?.i ?? null;
    this.#readValues(t);
  }

  #key(e: KeyboardEvent): void {
    const times = this.#plot?.model.times;
    if (!times?.length || e.ctrlKey || e.metaKey || e.altKey) return;
    const stride = e.shiftKey ? 10 : 1;
    const last = times.length - 1;
    const t = this.#page.hover.t;
    const at = t === null ? last + (e.key === "ArrowLeft" ? 1 : 0) : Math.round((t - times[0]!) / this.#plot!.model.stepMs);
    const moves: Record<string, number> = { ArrowLeft: at - stride, ArrowRight: at + stride, Home: 0, End: last };
    if (e.key === "Escape" && t !== null) {
      this.#page.hover.set(null, null);
    } else if (e.key === "Enter") {
      this.#explain();
    } else if ((e.key === "ArrowUp" || e.key === "ArrowDown") && t !== null && this.#picks.length > 1) {
      this.#step(t, e.key === "ArrowUp" ? 1 : -1);
    } else if (moves[e.key] !== undefined) {
      const next = times[Math.max(0, Math.min(last, moves[e.key]!))]!;
      this.#plot!.crosshair(next);
      this.#page.hover.set(next, this);
    } else return;
    e.preventDefault();
  }
}

/** A dragged stretch, widened to whole minutes. */
function minutes(from: number, to: number): { from: number; to: number } {
  const m = 60_000;
  const start = Math.floor(from / m) * m;
  return { from: start, to: Math.max(start + 2 * m, Math.ceil(to / m) * m) };
}
