// One metric whose value is a list: a funnel as bars, a top list as a table with spark bars. Shows one point: the newest that
// hardly changes any more, or the one pointed at in another chart.
import type { Metric } from "../contract";
import { exact } from "../format";
import { soon } from "../frame";
import type { Feed } from "../feeds";
import { asCounts, asTop, covers, ranked, shownAt, stages } from "../lists";
import type { Page } from "../page";
import type { Line } from "../series";
import { csv, fileName } from "../table";
import { duration, nearTime } from "../time";
import { applicable } from "../view";
import { h, setText, svg } from "./dom";
import { downloadButton, saveText } from "./download";

const ROWS_MAX = 10;
const BARS = 24;
const BAR_PX = 4;
const BARS_HEIGHT = 18;
const PATIENCE_MS = 700; // an answer that comes sooner needs no word

export class ListChart {
  readonly el: HTMLElement;
  metric: Metric;
  #page: Page;
  #feed: { feed: Feed; close(): void } | null = null;
  #specKey = "";
  #shown = "";
  #title = h("h3", {});
  #note = h("span", { class: "note" });
  #readout = h("output", { class: "readout", "aria-live": "off" });
  #body = h("div", { class: "list-body", tabindex: -1 });
  #message = h("p", { class: "list-message", hidden: true });
  #stop: () => void;

  constructor(page: Page, metric: Metric) {
    this.#page = page;
    this.metric = metric;
    const download = downloadButton(() => metric.title, [{ kind: "CSV", what: "the list shown", save: () => this.#saveTable() }]);
    this.el = h(
      "section",
      { class: "chart list", id: `chart-${metric.name}`, "data-metric": metric.name },
      h("header", {}, h("div", { class: "chart-title" }, this.#title, this.#note, download), this.#readout),
      this.#body,
      this.#message,
    );
    this.#stop = page.hover.listen(() => this.changed());
    this.describe(metric);
  }

  describe(metric: Metric): void {
    this.metric = metric;
    setText(this.#title, metric.title);
    this.#title.title = `${metric.name} = ${metric.expression}`;
    this.#shown = "";
    this.follow();
  }

  /** Shows what the view asks for. */
  follow(): void {
    const spec = this.#page.listSpec(this.metric);
    const { ignored } = applicable(this.#page.view, this.metric.dimensions);
    const notes = ignored.map((d) => `not filtered by ${d}`);
    if (this.#page.view.by) notes.push("not split");
    setText(this.#note, notes.join(", "));
    const key = JSON.stringify(spec);
    if (key !== this.#specKey) {
      this.#specKey = key;
      this.#feed?.close();
      const mine = this.#page.feeds.open(spec, this.changed);
      this.#feed = mine;
      setTimeout(() => {
        if (this.#feed === mine && !mine.feed.book && !mine.feed.error && !this.#shown) this.#say("Loading");
      }, PATIENCE_MS);
    }
    this.changed();
  }

  changed = (): void => {
    soon(this.#draw);
  };

  recolour(): void {
    this.changed();
  }

  focus(): void {
    const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
    this.el.scrollIntoView({ behavior: calm ? "auto" : "smooth", block: "center" });
    this.#body.focus({ preventScroll: true });
  }

  close(): void {
    this.#feed?.close();
    this.#stop();
    this.el.remove();
  }

  #draw = (): void => {
    const feed = this.#feed?.feed;
    if (!feed) return;
    if (feed.error) return this.#say(feed.error);
    if (!feed.book) return;
    const line = feed.book.lines[0];
    const t = line ? shownAt(feed.book, line, this.#page.hover.t) : null;
    if (!line || t === null) {
      this.#shown = "";
      this.#body.replaceChildren();
      this.#readout.replaceChildren();
      return this.#say("No events in this time");
    }
    this.#say("");
    const end = t + feed.book.stepMs;
    const whole = covers(this.metric, feed.book.stepMs);
    const provisional = t >= feed.book.provisionalFrom;
    const when = `${duration(whole)} to ${nearTime(end)}${provisional ? ", may still grow" : ""}`;
    const shown = JSON.stringify([t, line.points.length, line.points.find((p) => p[0] === t)?.[1], when]);
    if (shown === this.#shown) return;
    this.#shown = shown;
    this.el.classList.toggle("provisional", provisional);
    this.#readout.replaceChildren(h("span", { class: "when" }, when));
    this.#body.replaceChildren(this.metric.value === "funnel" ? this.#funnel(line, t) : this.#top(line, t));
  };

  #funnel(line: Line, t: number): HTMLElement {
    const counts = asCounts(line.points.find((p) => p[0] === t)?.[1]);
    const percent = (share: number | null): string => (share === null ? "" : `${exact(share * 100, 1)}\u202f%`);
    const rows = stages(counts, this.metric.steps ?? []).map((s) =>
      h(
        "tr",
        {},
        h("th", { scope: "row", title: s.name }, s.name),
        h("td", { class: "share" }, bar(s.ofFirst ?? 0)),
        h("td", { class: "n" }, exact(s.count)),
        h("td", { class: "n" }, percent(s.ofBefore)),
        h("td", { class: "n" }, percent(s.ofFirst)),
      ),
    );
    const head = h(
      "tr",
      {},
      h("th", { scope: "col" }, "step"),
      h("th", { "aria-hidden": "true" }),
      h("th", { scope: "col", class: "n" }, "keys"),
      h("th", { scope: "col", class: "n" }, "of step before"),
      h("th", { scope: "col", class: "n" }, "of first"),
    );
    return h("table", { class: "funnel" }, h("caption", { class: "unseen" }, `${this.metric.title}, conversion by step`), h("thead", {}, head), h("tbody", {}, ...rows));
  }

  #top(line: Line, t: number): HTMLElement {
    const all = ranked(line, t, BARS);
    const rows = all.slice(0, ROWS_MAX).map((r) =>
      h(
        "tr",
        {},
        h("th", { scope: "row", title: r.value }, r.value === "" ? "(none)" : r.value),
        h("td", { class: "bars" }, sparkBars(r.before)),
        h("td", { class: "n" }, exact(r.count)),
      ),
    );
    const more = all.length - rows.length;
    const foot = more > 0 && h("tfoot", {}, h("tr", {}, h("td", { colspan: 3 }, `${more} more`)));
    const most = asTop(line.points.find((p) => p[0] === t)?.[1])[0]?.[0];
    const caption = `${this.metric.title}, most frequent first${most === undefined ? "" : `: ${most}`}`;
    return h("table", { class: "top" }, h("caption", { class: "unseen" }, caption), h("tbody", {}, ...rows), foot);
  }

  #saveTable(): void {
    const book = this.#feed?.feed.book;
    const line = book?.lines[0];
    const t = book && line ? shownAt(book, line, this.#page.hover.t) : null;
    if (!book || !line || t === null) return;
    const value = line.points.find((p) => p[0] === t)?.[1];
    const time = new Date(t).toISOString();
    const table =
      this.metric.value === "funnel"
        ? { head: ["time", "step", "keys", "of_step_before", "of_first"], rows: stages(asCounts(value), this.metric.steps ?? []).map((s) => [time, s.name, s.count, s.ofBefore, s.ofFirst]) }
        : { head: ["time", "value", "count"], rows: asTop(value).map(([v, count]) => [time, v, count]) };
    saveText(fileName(this.metric.name, { from: t, to: t + book.stepMs }, "csv"), csv(table));
  }

  #say(text: string): void {
    setText(this.#message, text);
    this.#message.hidden = text === "";
  }
}

/** As wide as the share of its place. The page's rules allow no style in markup. */
function bar(share: number): HTMLElement {
  const el = h("span", {});
  el.style.width = `${(share * 100).toFixed(2)}%`;
  return el;
}

/** A bar a point, to the value's own height: whether it rises or falls, not how much it is. */
function sparkBars(counts: number[]): SVGElement {
  const most = Math.max(1, ...counts);
  const width = BARS * BAR_PX;
  const first = BARS - counts.length;
  const bars = counts.map((n, i) => {
    const height = n === 0 ? 0 : Math.max(1, (n / most) * BARS_HEIGHT);
    return svg("rect", { x: (first + i) * BAR_PX, y: BARS_HEIGHT - height, width: BAR_PX - 1, height });
  });
  return svg("svg", { viewBox: `0 0 ${width} ${BARS_HEIGHT}`, width, height: BARS_HEIGHT, "aria-hidden": "true" }, ...bars);
}
