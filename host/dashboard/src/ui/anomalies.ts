// The list at the side: what was not as expected, newest first. Opens a feed for each metric with a rule.
import { episodesOf, newestFirst, ongoing, type Episode } from "../episodes";
import { compact, short, valueText } from "../format";
import { soon } from "../frame";
import type { Feed } from "../feeds";
import type { Page } from "../page";
import { DAY, duration, MINUTE, nearTime, now } from "../time";
import { h, icon, ICONS } from "./dom";

const LISTED_MAX = 100;
const AROUND_MS_MIN = 20 * MINUTE;

export class Anomalies {
  readonly el: HTMLElement;
  episodes: Episode[] = [];
  #page: Page;
  #open = new Map<string, { key: string; feed: Feed; close(): void }>();
  #list = h("ol", { class: "episodes" });
  #watched = h("p", { class: "quiet" });
  #told: () => void;
  #signature = "";

  constructor(page: Page, close: () => void, told: () => void) {
    this.#page = page;
    this.#told = told;
    this.el = h(
      "aside",
      { class: "side", "aria-label": "Anomalies" },
      h("header", {}, h("h2", {}, "Anomalies", h("span", { class: "unit" }, "last 24 h")), h("button", { class: "button icon-button", "aria-label": "Close the anomalies", onclick: close }, icon(ICONS.close))),
      this.#list,
      this.#watched,
    );
  }

  /** Judged series of every metric with a rule. */
  async follow(): Promise<void> {
    const judged = this.#page.catalog.metrics.filter((m) => m.anomalies);
    for (const d of new Set(judged.flatMap((m) => m.anomalies!.by))) await this.#page.values(d).catch(() => []);
    for (const [name, o] of this.#open) {
      if (judged.some((m) => m.name === name)) continue;
      o.close();
      this.#open.delete(name);
    }
    for (const m of judged) {
      const spec = this.#page.judgedSpec(m);
      const key = JSON.stringify(spec);
      const have = this.#open.get(m.name);
      if (have?.key === key) continue;
      have?.close();
      this.#open.set(m.name, { key, ...this.#page.feeds.open(spec, this.changed) });
    }
    this.changed();
  }

  changed = (): void => soon(this.#collect);

  #collect = (): void => {
    const found: Episode[] = [];
    for (const [name, { feed }] of this.#open) {
      const metric = this.#page.metric(name);
      if (!metric || !feed.book) continue;
      for (const line of feed.book.lines) found.push(...episodesOf(metric, line, feed.book.stepMs));
    }
    this.episodes = newestFirst(found.filter((e) => e.to >= now() - DAY));
    this.#told();
    this.#draw();
  };

  #draw(): void {
    const t = now();
    const shown = this.episodes.slice(0, LISTED_MAX);
    const going = shown.map((e) => ongoing(e, MINUTE, t));
    const signature = JSON.stringify([shown.map((e, i) => [e.metric.name, e.labels, e.from, e.to, e.worst.t, e.worst.value, going[i]])]);
    if (signature !== this.#signature) {
      this.#signature = signature;
      this.#list.replaceChildren(...shown.map((e, i) => this.#item(e, going[i]!)));
    }
    const rules = this.#page.catalog.metrics
      .filter((m) => m.anomalies)
      .map((m) => `${m.title} (${m.anomalies!.rule}${m.anomalies!.by.length ? ` by ${m.anomalies!.by.join(", ")}` : ""})`);
    const none = this.episodes.length ? "" : "Nothing unusual in the last 24 h. ";
    const text = rules.length ? `${none}Watched: ${rules.join(", ")}.` : "No metric is watched: [anomalies] in metrics.toml says which and how.";
    if (this.#watched.textContent !== text) this.#watched.textContent = text;
  }

  #item(e: Episode, going: boolean): HTMLElement {
    const labels = Object.values(e.labels).map(valueText).join(", ");
    const w = e.worst;
    const expected = w.expected === null ? null : `expected ${short(w.expected, e.metric)}`;
    const away = w.score === null ? null : w.rule === "absent" ? `no event for ${duration(w.score * MINUTE)}` : `score ${compact(Math.abs(w.score))}`;
    const length = e.to - e.from;
    const choose = (): void => this.#choose(e);
    return h(
      "li",
      {},
      h(
        "button",
        { class: going ? "episode going" : "episode", onclick: choose, title: "Zoom every chart to it" },
        h("span", { class: "episode-head" }, h("b", {}, e.metric.title), labels ? h("span", { class: "label" }, labels) : null, h("time", {}, nearTime(e.from))),
        h("span", { class: "episode-what" }, h("b", {}, short(w.value, e.metric)), expected && ` ${expected}`),
        h("span", { class: "episode-how" }, [going ? "still going on" : length ? `for ${duration(length + MINUTE)}` : "one minute", away, w.rule].filter(Boolean).join(" · ")),
      ),
    );
  }

  #choose(e: Episode): void {
    const around = Math.max(AROUND_MS_MIN, (e.to - e.from) * 1.5);
    const span = { from: e.from - around, to: Math.min(e.to + around, Math.floor(now() / MINUTE) * MINUTE) };
    const by = e.metric.anomalies?.by[0] ?? null;
    void this.#page.navigate(by ? { span, by } : { span }).then(() => this.#page.showMetric(e.metric.name, by ? e.labels[by] : undefined));
  }
}
