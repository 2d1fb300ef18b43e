// One headline metric: the number, its change against the same time yesterday, a spark line of 24 hours.
import { query } from "../api";
import type { Metric } from "../contract";
import { ongoing, type Episode } from "../episodes";
import { change, NO_VALUE, short } from "../format";
import { soon } from "../frame";
import type { Feed } from "../feeds";
import type { Page } from "../page";
import { Book, presentPoint, shrink, valueAt } from "../series";
import { DAY, HOUR, MINUTE, nearTime, now } from "../time";
import { h, setText, svg } from "./dom";

const SPARK_POINTS = 96;
const SPARK_W = 240;
const SPARK_H = 40;

export class Card {
  readonly el: HTMLElement;
  metric: Metric;
  #page: Page;
  #feed: { feed: Feed; close(): void } | null = null;
  #specKey = "";
  #yesterday: { key: string; until: number; book: Book | null } = { key: "", until: 0, book: null };
  #title = h("span", { class: "card-title" });
  #number = h("span", { class: "card-number" });
  #change = h("span", { class: "card-change" });
  #since = h("span", { class: "card-since" });
  #line = svg("path", { class: "spark-line" });
  #area = svg("path", { class: "spark-area" });
  #oddSince: number | null = null;

  constructor(page: Page, metric: Metric) {
    this.#page = page;
    this.metric = metric;
    const spark = svg("svg", { class: "spark", viewBox: `0 0 ${SPARK_W} ${SPARK_H}`, preserveAspectRatio: "none", "aria-hidden": "true" }, this.#area, this.#line);
    this.el = h(
      "button",
      { class: "card", "data-metric": metric.name, onclick: () => page.showMetric(metric.name) },
      h("span", { class: "card-head" }, this.#title, this.#since),
      this.#number,
      this.#change,
      spark,
    );
    this.describe(metric);
  }

  describe(metric: Metric): void {
    this.metric = metric;
    setText(this.#title, metric.title);
    this.follow();
  }

  follow(): void {
    const spec = this.#page.cardSpec(this.metric);
    const key = JSON.stringify(spec);
    if (key !== this.#specKey) {
      this.#specKey = key;
      this.#feed?.close();
      this.#feed = this.#page.feeds.open(spec, this.changed);
    }
    this.changed();
  }

  /** The episode that goes on now, if any. */
  episodes(list: Episode[]): void {
    const t = now();
    const going = list.filter((e) => e.metric.name === this.metric.name && ongoing(e, MINUTE, t));
    this.#oddSince = going.length ? Math.min(...going.map((e) => e.from)) : null;
    this.changed();
  }

  changed = (): void => soon(this.#draw);

  close(): void {
    this.#feed?.close();
    this.el.remove();
  }

  #draw = (): void => {
    const book = this.#feed?.feed.book;
    this.el.classList.toggle("odd", this.#oddSince !== null);
    this.#since.replaceChildren(...(this.#oddSince === null ? [] : [h("span", { class: "word" }, "anomaly "), `since ${nearTime(this.#oddSince)}`]));
    if (!book) {
      if (!this.#number.textContent) setText(this.#number, NO_VALUE);
      return;
    }
    const line = book.lines[0];
    const point = presentPoint(book, line, this.metric);
    this.#write(short(point?.[1], this.metric));
    this.#compare(point?.[0] ?? null, point?.[1] ?? null);
    const end = Math.min(book.provisionalFrom, Math.floor(now() / MINUTE) * MINUTE + MINUTE);
    this.#spark(line ? shrink(line.points, end - DAY, end, SPARK_POINTS) : []);
  };

  /** The number large, what it counts in smaller. */
  #write(text: string): void {
    const [, number, unit] = /^(.*?)((?:\u202f[^\d/]+)?(?:\/\S+)?)$/.exec(text) ?? ["", text, ""];
    if (this.#number.textContent === text) return;
    this.#number.replaceChildren(number!, ...(unit ? [h("small", {}, unit)] : []));
  }

  #compare(t: number | null, value: number | null): void {
    const before = t === null ? null : this.#before(t - DAY);
    const c = change(value, before, this.metric.unit, this.metric.better);
    this.#change.className = `card-change ${c?.tone ?? "flat"}`;
    this.#change.title = c && t !== null ? `Yesterday at this time: ${short(before, this.metric)}` : "";
    if (!c) setText(this.#change, this.#yesterday.book ? "no value yesterday" : "");
    else this.#change.replaceChildren(c.text, h("small", {}, " on yesterday"));
  }

  /** Yesterday's value; asks for an hour of them at a time. */
  #before(t: number): number | null {
    const y = this.#yesterday;
    if (y.key !== this.#specKey || t > y.until) {
      const spec = this.#page.cardSpec(this.metric);
      this.#yesterday = { key: this.#specKey, until: t + HOUR, book: y.key === this.#specKey ? y.book : null };
      const mine = this.#yesterday;
      query({ ...spec, from: t - 2 * MINUTE, to: t + HOUR + 2 * MINUTE }).then(
        (answer) => {
          mine.book = new Book(answer);
          this.changed();
        },
        () => {
          mine.until = t + MINUTE; // asked again in a while
        },
      );
    }
    const line = this.#yesterday.book?.lines[0];
    return line ? valueAt(line, t) : null;
  }

  #spark(values: (number | null)[]): void {
    const known = values.filter((v): v is number => v !== null);
    const low = this.metric.zero_fill ? Math.min(0, ...known) : Math.min(...known);
    const high = Math.max(...known);
    const y = (v: number): number => SPARK_H - 2 - ((v - low) / (high - low || 1)) * (SPARK_H - 4);
    let line = "";
    let area = "";
    let from: number | null = null;
    values.forEach((v, i) => {
      const x = ((i + 0.5) / values.length) * SPARK_W;
      const next = values[i + 1];
      if (v === null) return;
      if (from === null) {
        from = x;
        line += `M${x.toFixed(1)} ${y(v).toFixed(1)}`;
        area += `M${x.toFixed(1)} ${SPARK_H}L${x.toFixed(1)} ${y(v).toFixed(1)}`;
      } else {
        line += `L${x.toFixed(1)} ${y(v).toFixed(1)}`;
        area += `L${x.toFixed(1)} ${y(v).toFixed(1)}`;
      }
      if (next === null || next === undefined) {
        area += `L${x.toFixed(1)} ${SPARK_H}Z`;
        from = null;
      }
    });
    this.#line.setAttribute("d", line);
    this.#area.setAttribute("d", area);
  }
}
