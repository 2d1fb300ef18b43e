// Puts the page together and keeps it so: definitions make charts, the view says what they show, messages keep them alive.
import { getDefinitions, getMetrics, getStatus } from "./api";
import type { DefinitionsAnswer, LiveMessage, Metric, MetricsAnswer } from "./contract";
import { ongoing } from "./episodes";
import { Feeds } from "./feeds";
import { Hover } from "./hover";
import { Live } from "./live";
import { Page } from "./page";
import { MINUTE, now, setHostNow } from "./time";
import { Anomalies } from "./ui/anomalies";
import { Bar } from "./ui/bar";
import { Card } from "./ui/card";
import { Chart } from "./ui/chart";
import { keysDialog } from "./ui/dialogs";
import { h, keyed } from "./ui/dom";
import { Drawer } from "./ui/drawer";
import { Explain } from "./ui/explain";
import { listenToKeys } from "./ui/keyboard";
import { ListChart } from "./ui/list";
import { emptyNotice, rejectedBanner, staleBanner, impairedBanner } from "./ui/notices";
import { Wall } from "./ui/wall";
import { formatView, parseView, type View } from "./view";

const STATUS_MS = 10_000;
const STATUS_EMPTY_MS = 1_000;
const RETRY_MS = 2_000;
const SIDE_ITEM = "tidemark-anomalies";
const THEME_ITEM = "tidemark-theme";
const SIDE_BY_ITSELF = "(min-width: 1400px)";

export class App {
  #live: Live;
  #page: Page;
  #bar: Bar;
  #side: Anomalies;
  #drawer = new Drawer();
  #keys = keysDialog();
  #explain: Explain;
  #cards = new Map<string, Card>();
  #charts = new Map<string, Chart | ListChart>();
  #notices = h("div", { class: "notices" });
  #headline = h("div", { class: "headline" });
  #grid = h("div", { class: "charts" });
  #main: HTMLElement;
  #wall: Wall;
  #empty: HTMLElement | null = null;
  #statusFailures = 0;
  #statusTimer = 0;
  #minute = 0;

  constructor() {
    this.#live = new Live({
      message: (m) => this.#message(m),
      up: () => this.#up(),
      down: () => this.#down(),
    });
    this.#page = new Page(parseView(location.search), new Feeds(this.#live), new Hover());
    if (this.#page.view.theme === "system") this.#page.view.theme = storedTheme();
    this.#side = new Anomalies(this.#page, () => this.#showSide(false), () => this.#anomaliesKnown());
    this.#bar = new Bar(this.#page, {
      anomalies: () => this.#showSide(!this.#sideOpen),
      definitions: () => this.#drawer.toggle(),
      keys: () => this.#keys.showModal(),
      wall: () => this.#wall.enter(),
    });
    this.#wall = new Wall(this.#page, this.#grid);
    this.#bar.el.append(this.#wall.pages);
    this.#explain = new Explain(this.#page, () => this.#redraw());
    this.#page.explain = (asked) => this.#explain.open(asked);
    this.#main = h("main", {}, this.#notices, this.#headline, this.#grid);
    const layout = h("div", { class: "layout" }, this.#main, this.#side.el);
    document.body.append(this.#bar.el, layout, this.#explain.el, this.#drawer.el, this.#keys);
    // What lies beside the charts begins below the bar, of as many lines as it has.
    new ResizeObserver(() => document.documentElement.style.setProperty("--bar", `${this.#bar.el.offsetHeight}px`)).observe(this.#bar.el);
    this.#page.navigate = (change, push = true) => this.#navigate(change, push);
    this.#page.zoomOut = () => this.#zoomOut();
    this.#page.showMetric = (name, only) => {
      // Where the list lies over the charts it gives way to them.
      if (!matchMedia(SIDE_BY_ITSELF).matches) this.#showSide(false);
      this.#charts.get(name)?.focus(only);
    };
    const beside = matchMedia(SIDE_BY_ITSELF);
    const sideByDefault = (): void => this.#showSide(beside.matches && localStorage.getItem(SIDE_ITEM) !== "closed", false);
    beside.addEventListener("change", sideByDefault);
    sideByDefault();
    this.#wall.follow();
    this.#theme();
  }

  start(): void {
    addEventListener("popstate", () => this.#goTo({ ...parseView(location.search), theme: this.#page.view.theme }));
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.#theme());
    listenToKeys(this.#page, {
      filters: () => this.#bar.openFilters(),
      anomalies: () => this.#showSide(!this.#sideOpen),
      definitions: () => this.#drawer.toggle(),
      wall: () => (this.#page.view.wall ? this.#wall.leave() : this.#wall.enter()),
      escape: () => {
        if (this.#page.view.wall) this.#wall.leave();
        this.#bar.sheet(false);
        this.#explain.close();
        if (!matchMedia(SIDE_BY_ITSELF).matches) this.#showSide(false);
      },
      help: () => (this.#keys.open ? this.#keys.close() : this.#keys.showModal()),
    });
    setInterval(() => this.#tick(), 1_000);
    this.#bar.follow();
    this.#bar.state();
    void this.#load();
  }

  async #load(): Promise<void> {
    this.#live.connect();
    if (!(await this.#reloadCatalog())) {
      setTimeout(() => void this.#load(), RETRY_MS);
      return;
    }
    this.#live.retryNow(); // the first attempt may have lacked the key
    void this.#poll();
    void this.#checkDefinitions();
  }

  async #reloadCatalog(): Promise<boolean> {
    let catalog: MetricsAnswer;
    try {
      catalog = await getMetrics();
    } catch {
      return false;
    }
    const before = this.#page.catalog;
    this.#page.catalog = catalog;
    this.#page.feeds.refreshMs = catalog.refresh_ms;
    for (const m of catalog.metrics) {
      const old = before.metrics.find((o) => o.name === m.name);
      if (!old || JSON.stringify(old) === JSON.stringify(m)) continue;
      this.#cards.get(m.name)?.describe(m);
      this.#charts.get(m.name)?.describe(m);
    }
    await this.#splitValues();
    const order = [...new Set([...catalog.headline, ...catalog.metrics.map((m) => m.name)])].filter((n) => this.#page.metric(n));
    const drop = (have: Map<string, { close(): void }>, want: string[]): void => {
      for (const [name, part] of have) if (!want.includes(name)) part.close();
    };
    const headline = this.#page.headline.map((m) => m.name);
    drop(this.#cards, headline);
    // What has become a list, or a number, is drawn otherwise.
    const kept = order.filter((n) => before.metrics.find((o) => o.name === n)?.value === this.#page.metric(n)?.value);
    drop(this.#charts, order);
    for (const [name, chart] of this.#charts) {
      if (order.includes(name) && !kept.includes(name)) {
        chart.close();
        this.#charts.delete(name);
      }
    }
    keyed(this.#headline, this.#cards, headline, (n) => new Card(this.#page, this.#page.metric(n)!));
    keyed(this.#grid, this.#charts, order, (n) => this.#chart(this.#page.metric(n)!));
    // Which metrics are of one chart may be another thing now.
    for (const c of this.#charts.values()) c.follow();
    this.#bar.follow();
    this.#wall.lay();
    void this.#side.follow();
    return true;
  }

  #chart(metric: Metric): Chart | ListChart {
    return metric.value === "number" ? new Chart(this.#page, metric) : new ListChart(this.#page, metric);
  }

  async #checkDefinitions(): Promise<void> {
    const d = await getDefinitions().catch(() => null);
    if (!d) return;
    this.#definedAs(d);
    this.#page.rejected = d.last.outcome === "rejected" ? { at: d.last.at, diagnostics: d.last.diagnostics } : null;
    this.#notice();
  }

  /** A mark on every time axis. Before the host's start is known nothing can be said: then it is asked again. */
  #definedAs(d: DefinitionsAnswer): void {
    const { status, happenings } = this.#page;
    if (status && happenings.defined(d, status.started_at)) this.#redraw();
  }

  #redraw(): void {
    for (const c of this.#charts.values()) c.changed();
  }

  #message(m: LiveMessage): void {
    const page = this.#page;
    page.connection.heardAt = now();
    if (m.op === "snapshot") page.feeds.snapshot(m);
    else if (m.op === "delta") page.feeds.delta(m);
    else if (m.op === "anomaly") page.feeds.anomaly(m);
    else if (m.op === "error") page.feeds.failed(m);
    else if (m.op === "definitions") void this.#definitions(m.rejected?.length ? m.rejected : null);
    else if (m.op === "stale") this.#stale(m.since, m.reason ?? "");
    if (this.#empty && m.op !== "definitions") this.#notice();
  }

  #stale(since: number | null, reason: string): void {
    this.#page.stale = since === null ? null : { since, reason };
    this.#notice();
  }

  async #definitions(rejected: NonNullable<Page["rejected"]>["diagnostics"] | null): Promise<void> {
    this.#page.rejected = rejected && { at: now(), diagnostics: rejected };
    this.#notice();
    void this.#drawer.refresh();
    if (rejected) return;
    await this.#reloadCatalog();
    this.#page.feeds.retryFailed();
    void this.#checkDefinitions();
  }

  #up(): void {
    const was = this.#page.connection.downSince;
    Object.assign(this.#page.connection, { up: true, downSince: 0, heardAt: now() });
    // A host that is stale says so to every new connection.
    if (this.#page.stale) this.#stale(null, "");
    this.#page.feeds.reopen();
    this.#bar.state();
    if (!was) return;
    void this.#reloadCatalog();
    void this.#checkDefinitions();
    void this.#poll();
  }

  #down(): void {
    Object.assign(this.#page.connection, { up: false, downSince: now() });
    this.#bar.state();
  }

  /** The host's own state: the dot, and whether there is anything to show. */
  async #poll(): Promise<void> {
    clearTimeout(this.#statusTimer);
    try {
      const status = await getStatus();
      this.#page.status = status;
      this.#statusFailures = 0;
      setHostNow(status.now);
      if (this.#page.happenings.started(status)) {
        this.#redraw();
        void this.#checkDefinitions();
      }
      if (this.#page.connection.up) this.#page.connection.heardAt = now();
      else this.#live.retryNow();
      this.#notice();
    } catch {
      // A half-open socket can stay silent for long: the second unanswered question closes it.
      if (++this.#statusFailures >= 2) this.#live.drop();
    }
    this.#bar.state();
    this.#statusTimer = window.setTimeout(() => void this.#poll(), this.#empty ? STATUS_EMPTY_MS : STATUS_MS);
  }

  #notice(): void {
    const { rejected, stale, status, feeds } = this.#page;
    const empty = status !== null && status.events_total === 0 && feeds.allEmpty;
    if (empty) this.#empty ??= emptyNotice();
    else this.#empty = null;
    document.body.classList.toggle("is-empty", empty);
    const parts = [
      rejected && rejectedBanner(rejected.at, rejected.diagnostics),
      stale && staleBanner(stale.since, stale.reason),
      status?.impaired?.length ? impairedBanner(status.impaired) : null,
      this.#empty,
    ].filter((x): x is HTMLElement => x !== null);
    this.#notices.replaceChildren(...parts);
  }

  /** A new minute moves the range on, even where nothing new came. */
  #tick(): void {
    const minute = Math.floor(now() / MINUTE);
    if (minute === this.#minute || document.hidden || this.#page.connection.downSince) return;
    this.#minute = minute;
    this.#redraw();
    this.#side.changed();
  }

  #navigate(change: Partial<View>, push: boolean): Promise<void> {
    const view = { ...this.#page.view, ...change };
    if (change.theme) localStorage.setItem(THEME_ITEM, change.theme);
    const url = location.pathname + formatView(view);
    if (push) history.pushState({ zoomed: change.span != null }, "", url);
    else history.replaceState(history.state, "", url);
    return this.#goTo(view);
  }

  #zoomOut(): void {
    if (!this.#page.view.span) return;
    if ((history.state as { zoomed?: boolean } | null)?.zoomed) history.back();
    else void this.#navigate({ span: null }, true);
  }

  async #goTo(view: View): Promise<void> {
    const old = this.#page.view;
    this.#page.view = view;
    this.#page.release();
    this.#wall.follow();
    if (view.theme !== old.theme || view.wall !== old.wall) this.#theme();
    this.#bar.follow();
    await this.#splitValues();
    for (const c of this.#charts.values()) c.follow();
    for (const c of this.#cards.values()) c.follow();
    this.#wall.lay();
    void this.#side.follow();
  }

  /** The values of the split have their colours before lines are drawn in them. */
  async #splitValues(): Promise<void> {
    const { by } = this.#page.view;
    if (by && this.#page.catalog.dimensions.some((d) => d.name === by)) await this.#page.values(by).catch(() => []);
  }

  #anomaliesKnown(): void {
    this.#bar.anomalies(this.#side.episodes.length, this.#sideOpen);
    for (const c of this.#cards.values()) c.episodes(this.#side.episodes);
    const going = this.#side.episodes.filter((e) => ongoing(e, MINUTE, now())).length;
    document.title = going ? `(${going}) Tidemark` : "Tidemark";
  }

  get #sideOpen(): boolean {
    return document.body.classList.contains("with-side");
  }

  #showSide(open: boolean, remember = true): void {
    document.body.classList.toggle("with-side", open);
    this.#side.el.inert = !open;
    if (remember && matchMedia(SIDE_BY_ITSELF).matches) localStorage.setItem(SIDE_ITEM, open ? "open" : "closed");
    this.#bar.anomalies(this.#side.episodes.length, open);
  }

  #theme(): void {
    document.documentElement.dataset.theme = this.#page.scheme;
    this.#bar.follow();
    for (const c of this.#charts.values()) c.recolour();
  }
}

function storedTheme(): View["theme"] {
  const t = localStorage.getItem(THEME_ITEM);
  return t === "light" || t === "dark" ? t : "system";
}
