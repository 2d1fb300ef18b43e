// What the checks read from the page and do to it.
import { until } from "./until.mjs";

export const WAIT_MS = 20_000;

export class Page {
  /** @param out where pictures go */
  constructor(page, host, out) {
    this.p = page;
    this.out = out;
    this.host = host;
    this.errors = [];
    this.foreign = [];
    page.on("pageerror", (e) => this.errors.push(String(e.stack ?? e)));
    page.on("request", (r) => {
      const url = new URL(r.url());
      if (!["data:", "blob:"].includes(url.protocol) && url.hostname !== "127.0.0.1") this.foreign.push(r.url());
    });
  }

  async open(path = "/") {
    await this.p.goto(this.host.url + path);
    await this.drawn();
  }

  /** Every chart in sight shows its numbers. */
  drawn() {
    return until("charts are drawn", WAIT_MS, () => this.p.locator(".chart canvas").count());
  }

  wait(what, condition, deadlineMs = WAIT_MS) {
    return until(what, deadlineMs, condition);
  }

  charts() {
    return this.p.$$eval(".chart", (all) => all.map((c) => c.dataset.metric));
  }

  /** Charts with a plot of their own: no lists, none that is drawn into another. */
  plots() {
    return this.p.$$eval(".chart:not(.list, [hidden])", (all) => all.map((c) => c.dataset.metric));
  }

  /** Rows of a funnel or a top list, as texts of their cells. */
  rows(metric) {
    return this.p.$$eval(`#chart-${metric} tbody tr`, (all) => all.map((r) => [...r.children].map((c) => c.textContent)));
  }

  /** What a chart says in words: last, minimum, maximum, anomalies. */
  async summary(metric) {
    await this.p.locator(`#chart-${metric}`).scrollIntoViewIfNeeded();
    return this.p.locator(`#chart-${metric} .plot`).getAttribute("aria-label");
  }

  async summaries() {
    const out = {};
    for (const m of await this.plots()) out[m] = await this.summary(m);
    return out;
  }

  legend(metric) {
    return this.p.$$eval(`#chart-${metric} .legend .name`, (all) => all.map((n) => n.textContent));
  }

  card(metric) {
    return this.p.locator(`.card[data-metric="${metric}"]`);
  }

  state() {
    return this.p.locator(".state-text").textContent();
  }

  search() {
    return new URL(this.p.url()).search;
  }

  /** Ticks the first listed value of a dimension in the list that `/` opens. */
  async filterFirst(dimension) {
    await this.p.locator("body").press("/");
    const row = this.p.locator("fieldset", { has: this.p.locator(`legend:text-is("${dimension}")`) }).locator(".filter-row").first();
    await row.waitFor({ timeout: WAIT_MS });
    const value = await row.locator(".name").textContent();
    await row.locator("input").check();
    await this.p.keyboard.press("Escape");
    return value;
  }
}

export function assert(condition, message) {
  if (!condition) throw new Error(message);
}
