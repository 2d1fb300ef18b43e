// One metric's chart: title, readout, plot, legend, and a summary in words. Chooses which lines are drawn.
import type { Metric } from "../contract";
import { change, full, unitText, valueText, type Figure } from "../format";
import { soon } from "../frame";
import type { Feed, FeedSpec } from "../feeds";
import { near, within } from "../happenings";
import { pastSpec, refine, scaleOf } from "../past";
import type { Page } from "../page";
import { strokeAt, type Stroke } from "../palette";
import { family, familyTitle, lineName } from "../percentiles";
import { columns, extent, presentPoint, valueAt, weight, type Line } from "../series";
import { SHARE, shareOf } from "../shares";
import { Sources } from "../sources";
import { chartTable, csv, fileName } from "../table";
import { nearTime, now, wholeMinutes } from "../time";
import { applicable, compared } from "../view";
import { h, setText } from "./dom";
import { downloadButton, save, saveText } from "./download";
import { Legend } from "./legend";
import { picture } from "./picture";
import { Plot, type Mark, type PlotModel } from "./plot";

const LINES_MAX = 8;
const TOTAL = ":total";
const PAST = "past:";
const PATIENCE_MS = 700; // an answer that comes sooner needs no word

export interface Pick extends Stroke {
  key: string;
  name: string;
  metric: Metric;
  line: Line;
  /** The same line some time before. */
  past: Line | undefined;
}

export class Chart {
  readonly el: HTMLElement;
  metric: Metric;
  #page: Page;
  #sources: Sources;
  /** The metric, and other percentiles of the same that are drawn into this chart. */
  #drawn: { metric: Metric; spec: FeedSpec }[] = [];
  #split = "";
  /** How its values are written: shares otherwise than what they are of. */
  #figure: Figure;
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
    this.#figure = metric;
    this.#canvas = h("div", { class: "plot", tabindex: 0, role: "img" });
    this.#sources = new Sources(page.feeds, this.changed);
    this.#legend = new Legend((key, add) => this.#isolate(key, add));
    const download = downloadButton(() => this.#title.textContent ?? "", [
      { kind: "CSV", what: "the values shown", save: () => this.#saveTable() },
      { kind: "PNG", what: "a picture", save: () => this.#savePicture() },
    ]);
    this.el = h(
      "section",
      { class: "chart", id: `chart-${metric.name}`, "data-metric": metric.name },
      h("header", {}, h("div", { class: "chart-title" }, this.#title, this.#unit, this.#note, download), this.#readout),
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
    this.#title.title = `${metric.name} = ${metric.expression}`;
    this.follow();
  }

  /** Shows what the view asks for. */
  follow(): void {
    const { catalog } = this.#page;
    const spec = this.#page.chartSpec(this.metric);
    // Split, each has a chart of its own.
    const metrics = spec.by.length ? [this.metric] : family(catalog.metrics, this.metric);
    const leads = metrics[0]!.name === this.metric.name;
    this.el.hidden = !leads;
    setText(this.#title, metrics.length > 1 ? familyTitle(metrics) : this.metric.title);
    this.#drawn = (leads ? metrics : [this.metric]).map((metric) => ({ metric, spec: this.#page.chartSpec(metric) }));
    const total = this.#page.totalSpec(this.metric);
    this.#figure = total ? SHARE : this.metric;
    setText(this.#unit, total ? "% of the total" : unitText(this.metric));
    const split = spec.by.join();
    if (split !== this.#split) {
      this.#split = split;
      this.#isolated.clear();
      this.#order.clear();
    }
    if (this.#source().includes(this.metric.name)) {
      const mine = this.#feed;
      setTimeout(() => {
        if (this.#feed === mine && !mine?.book && !mine?.error && !this.#plot) this.#say("Loading");
      }, PATIENCE_MS);
    }
    this.changed();
  }

  /** Opens what is to be drawn; says what of it is new. What it is compared with moves on with the hours. */
  #source(): string[] {
    const { compare } = this.#page.view;
    const parts = new Map<string, FeedSpec>();
    for (const { metric, spec } of this.#drawn) {
      parts.set(metric.name, spec);
      if (compare) parts.set(PAST + metric.name, pastSpec(spec, compared(compare).ms, now()));
    }
    const total = this.#page.totalSpec(this.metric);
    if (total) parts.set(TOTAL, total);
    if (total && compare) parts.set(PAST + TOTAL, pastSpec(total, compared(compare).ms, now()));
    return this.#sources.want(parts);
  }

  /** What of the view this chart cannot follow. */
  #notes(): string {
    const { view } = this.#page;
    const notes = applicable(view, this.metric.dimensions).ignored.map((d) => `not filtered by ${d}`);
    if (view.by && !this.metric.dimensions.includes(view.by)) notes.push(`not split by ${view.by}`);
    const past = this.#sources.get(PAST + this.metric.name);
    if (view.compare && (past?.error || past?.book?.empty)) notes.push(`nothing of ${compared(view.compare).name}`);
    else if (view.compare && past?.book && this.#scale(this.metric, past.book.stepMs) === null) notes.push(`only hours are kept of ${compared(view.compare).name}`);
    return notes.join(", ");
  }

  get #feed(): Feed | undefined {
    return this.#sources.get(this.metric.name);
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
    this.#sources.close();
    this.#stop();
    this.#sizes.disconnect();
    this.#sight.disconnect();
    this.#plot?.destroy();
    this.el.remove();
  }

  #draw = (): void => {
    this.#dirty = false;
    this.#source();
    setText(this.#note, this.#notes());
    const feed = this.#feed;
    if (!feed) return;
    if (feed.error) this.#say(feed.error);
    // Before the answer: the new piece of time with the data there is.
    if (!feed.book || (this.#figure === SHARE && !this.#sources.get(TOTAL)?.book)) {
      if (this.#plot) this.#plot.update({ ...this.#plot.model, window: this.#page.window() }, false);
      return;
    }
    this.#choose(feed);
    if (this.#figure === SHARE) this.#picks = this.#picks.map((p) => this.#share(p));
    const window = this.#page.window();
    const model = this.#model(feed, window);
    const key = JSON.stringify([this.#picks.map((p) => [p.key, p.colour]), this.#page.scheme, this.#figure.unit]);
    if (key !== this.#plotKey) {
      this.#plotKey = key;
      this.#plot?.destroy();
      this.#plot = new Plot(this.#canvas, model, {
        point: (t, nearest) => {
          this.#nearest = nearest;
          if (this.#page.hover.t === t) this.#readValues(t);
          this.#page.hover.set(t, this);
        },
        zoom: (from, to) => this.#page.navigate({ span: wholeMinutes(from, to) }),
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
      figure: this.#figure,
      fromZero: this.metric.zero_fill || this.#figure.unit === "%" || this.metric.per_ms !== null,
      stepMs: book.stepMs,
      times,
      lines: this.#picks.map((p, i) => ({ ...p, anomalies: p.line.anomalies, band: p.line.band, column: values[i]!, past: this.#past(p, window, book.stepMs) })),
      provisionalFrom: book.provisionalFrom,
      marks: this.#marks(window),
      happenings: this.#happened(window),
      asked: this.#picks.some((p) => p.metric.name === this.#page.asked?.metric.name) ? this.#page.asked!.t : null,
      window,
    };
  }

  #past(pick: Pick, window: { from: number; to: number }, stepMs: number): (number | null)[] | null {
    if (!pick.past) return null;
    return columns([pick.past], window.from - this.#beforeMs, window.to - this.#beforeMs, stepMs)[1]!;
  }

  /** What older values are multiplied by, where they come by the hour. */
  #scale(metric: Metric, pastStepMs: number): number | null {
    const stepMs = this.#feed?.book?.stepMs ?? pastStepMs;
    return stepMs === pastStepMs ? 1 : scaleOf(metric, stepMs, pastStepMs);
  }

  /** A line from before at the chart's step; none where it cannot be compared. */
  #refined(metric: Metric, past: Line | undefined): Line | undefined {
    const stepMs = this.#feed?.book?.stepMs;
    const pastStepMs = this.#sources.get(PAST + metric.name)?.book?.stepMs;
    if (!past || !stepMs || !pastStepMs || stepMs === pastStepMs) return past;
    const scale = scaleOf(metric, stepMs, pastStepMs);
    return scale === null ? undefined : refine(past, stepMs, pastStepMs, Math.max(metric.window_ms, stepMs), scale);
  }

  /** How long before is that what is drawn faintly? */
  get #beforeMs(): number {
    const { compare } = this.#page.view;
    return compare ? compared(compare).ms : 0;
  }

  #happened(window: { from: number; to: number }): Mark[] {
    return within(this.#page.happenings.list, window, this.#feed?.book?.stepMs ?? 0);
  }

  /** Where the metric's meaning changed with a plugin, and where it is complete from. */
  #marks(window: { from: number; to: number }): Mark[] {
    const marks = this.metric.changes.map(({ t, revision }) => ({ t, text: revision === null ? "plugin changed" : `plugin changed, r${revision}` }));
    const complete = this.#complete(window);
    return complete === null ? marks : [...marks, complete];
  }

  /** What is to be said where points of this piece of time may lack events. */
  #complete(window: { from: number; to: number }): Mark | null {
    const t = this.#feed?.book?.completeFrom ?? 0;
    if (t <= window.from) return null;
    return t > window.to ? { t: window.to, text: `complete from ${nearTime(t)} on` } : { t, text: `complete back to ${nearTime(t)}` };
  }

  /** The largest lines, or the isolated ones. Whoever came first keeps its rank, so that nothing jumps. */
  #choose(feed: Feed): void {
    const book = feed.book!;
    const dimension = feed.spec.by[0];
    const lines = book.lines.filter((l) => l.points.length);
    if (dimension === undefined) {
      const name = (m: Metric): string => (this.#drawn.length > 1 ? lineName(m) : m.title);
      const picks = this.#drawn.flatMap(({ metric }, i): Pick[] => {
        const line = this.#sources.get(metric.name)?.book?.lines[0];
        const past = this.#sources.get(PAST + metric.name)?.book?.lines[0];
        return line ? [{ key: i ? metric.name : "", name: name(metric), metric, line, past: this.#refined(metric, past), ...strokeAt(i, this.#page.scheme) }] : [];
      });
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
    const before = this.#sources.get(PAST + this.metric.name)?.book?.lines;
    const pick = (l: Line): Pick => {
      const place = this.#page.places.of(dimension, key(l));
      return { key: key(l), name: valueText(key(l)), metric: this.metric, line: l, past: this.#refined(this.metric, before?.find((b) => key(b) === key(l))), ...strokeAt(place, this.#page.scheme) };
    };
    this.#picks = shown.map(pick);
    this.#legend.list(listed.map(pick), ranked.slice(LINES_MAX).map(pick));
    this.#hidden = lines.length - Math.min(lines.length, LINES_MAX) + this.#page.leftOut(dimension);
  }

  #share(pick: Pick): Pick {
    const total = (part: string): Line | undefined => this.#sources.get(part)?.book?.lines[0];
    return { ...pick, line: shareOf(pick.line, total(TOTAL)), past: pick.past && shareOf(pick.past, this.#refined(this.metric, total(PAST + TOTAL))) };
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

  #saveTable(): void {
    if (!this.#plot) return;
    const { times, lines, window } = this.#plot.model;
    const { compare } = this.#page.view;
    const rows = lines.map((l, i) => ({ ...l, labels: this.#picks[i]!.line.labels }));
    const table = chartTable(times, rows, this.#figure === SHARE ? "share" : "value", compare && compared(compare).name);
    saveText(fileName(this.metric.name, window, "csv"), csv(table));
  }

  async #savePicture(): Promise<void> {
    if (!this.#plot) return;
    const { model } = this.#plot;
    const { compare } = this.#page.view;
    const words = { title: this.#title.textContent ?? "", unit: this.#unit.textContent ?? "", faint: compare && compared(compare).name };
    save(fileName(this.metric.name, model.window, "png"), await picture(words, model));
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
    const book = this.#feed?.book;
    const value = (p: Pick): number | null => (t === null ? (book ? (presentPoint(book, p.line, this.metric)?.[1] ?? null) : null) : valueAt(p.line, t));
    this.#legend.values(this.#picks.map((p) => full(value(p), this.#figure)));
    const one = this.#picks.length === 1 ? this.#picks[0] : this.#nearest === null ? undefined : this.#picks[this.#nearest];
    this.#legend.mark(this.#picks.length > 1 && t !== null ? (one?.key ?? null) : null);
    const parts: Node[] = [];
    if (t !== null) parts.push(...this.#happenedAt(t), h("span", { class: "when" }, nearTime(t)));
    if (one) {
      if (this.#picks.length > 1) parts.push(h("span", { class: "who" }, one.name));
      parts.push(h("b", {}, full(value(one), this.#figure)), ...this.#against(one, t, value(one)));
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
    const feed = this.#feed;
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

  /** What happened about there: a step is narrower than can be pointed at. */
  #happenedAt(t: number): Node[] {
    const model = this.#plot?.model;
    const found = model ? near(model.happenings, t, model.stepMs, model.window).map((x) => `${x.text} ${nearTime(x.t)}`) : [];
    return found.length ? [h("span", { class: "happened" }, found.join(", "))] : [];
  }

  /** The change on what it is compared with, at the time pointed at. */
  #against(pick: Pick, t: number | null, value: number | null): Node[] {
    const { compare } = this.#page.view;
    if (!compare || !pick.past || t === null) return [];
    const { ms, name } = compared(compare);
    const before = valueAt(pick.past, t - ms);
    const c = change(value, before, this.#figure.unit, this.metric.better);
    return c ? [h("span", { class: `against ${c.tone}`, title: `${name}: ${full(before, this.#figure)}` }, c.text, h("span", { class: "on" }, ` on ${name}`))] : [];
  }

  #summarise(window: { from: number; to: number }): void {
    const words = this.#picks.map((p) => {
      const e = extent(p.line, window.from, window.to);
      const [last, min, max] = [e.last, e.min, e.max].map((v) => full(v, this.#figure));
      const odd = p.line.anomalies.filter((a) => a.t >= window.from && a.t <= window.to).length;
      const past = p.past ? extent(p.past, window.from - this.#beforeMs, window.to - this.#beforeMs).max : null;
      const before = past === null ? "" : `, before that maximum ${full(past, this.#figure)}`;
      return `${p.name}: last ${last}, minimum ${min}, maximum ${max}${before}, ${odd === 1 ? "1 anomaly" : `${odd || "no"} anomalies`}`;
    });
    const complete = this.#complete(window);
    if (words.length && complete !== null) words.push(complete.text);
    const happened = this.#happened(window).map((x) => `; ${x.text} ${nearTime(x.t)}`);
    const text = words.length ? words.join(". ") + happened.join("") : `${this.metric.title}: no data`;
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
