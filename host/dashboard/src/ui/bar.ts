// The one line at the top: what is looked at and how the host is. On a phone the controls are in a sheet.
import { valueText } from "../format";
import type { Page } from "../page";
import { clockTime, duration, now, spanText, toInput, zoneName } from "../time";
import { compared, COMPARISONS, RANGES, windowAt, type Range, type View } from "../view";
import { h, icon, ICONS, setText } from "./dom";
import { chips, filterPanel } from "./filters";
import { closePopover, popover } from "./popover";

/** Behind: younger events than this are not on the page yet. */
const LAG_MS_MAX = 5_000;
const RANGE_NAMES: Record<Range, string> = { "1h": "1 h", "6h": "6 h", "24h": "24 h", "7d": "7 d", "30d": "30 d" };

export interface BarActions {
  anomalies(): void;
  definitions(): void;
  keys(): void;
  wall(): void;
}

export class Bar {
  readonly el: HTMLElement;
  #page: Page;
  #dot = h("i", { class: "dot" });
  #state = h("span", { class: "state-text" });
  #heard = h("span", { class: "heard" });
  #ranges = h("div", { class: "segments", role: "group", "aria-label": "Time range" });
  #chosen = h("button", { class: "chosen", "aria-haspopup": "dialog" });
  #zone = h("span", { class: "zone", title: "Times are in this zone" });
  #chips = h("div", { class: "chips" });
  #add = h("button", { class: "button quiet-button add-filter", "aria-haspopup": "dialog", "aria-keyshortcuts": "/", title: "Filter (/)" }, icon(ICONS.plus), "Filter");
  #split = h("select", { "aria-label": "Split by" });
  #share = h("button", { class: "button share-button", title: "Counts and sums as shares of their total (%)" }, "Share");
  #compare = h("select", { "aria-label": "Compare with" });
  #anomalies = h("button", { class: "button quiet-button", title: "Anomalies (a)" });
  #definitions = h("button", { class: "button quiet-button definitions", title: "Definitions, plugins, rejected events (d)" });
  #wall = h("button", { class: "button icon-button wall-button", "aria-label": "For a wall: full screen", title: "For a wall: full screen (w)" }, icon(ICONS.wall));
  #wallWords = h("div", { class: "wall-words" });
  #theme = h("button", { class: "button icon-button theme" });
  #sheetDefinitions = h("button", { class: "button" }, "Definitions");
  #sheetTheme = h("button", { class: "button" });
  #sheetButton = h("button", { class: "button icon-button sheet-button", "aria-label": "Time range, filters, split", "aria-expanded": "false" }, icon(ICONS.tune));
  #splitKey = "";

  constructor(page: Page, actions: BarActions) {
    this.#page = page;
    const controls = h(
      "div",
      { class: "controls" },
      h("div", { class: "when-controls" }, this.#ranges, this.#chosen, this.#zone),
      h("div", { class: "filters", role: "group", "aria-label": "Filters" }, this.#chips, this.#add),
      h("label", { class: "choice split" }, h("span", {}, "Split by"), this.#split),
      this.#share,
      h("label", { class: "choice compare" }, h("span", {}, "Compare with"), this.#compare),
      h("div", { class: "sheet-end" }, this.#sheetDefinitions, this.#sheetTheme),
    );
    this.el = h(
      "header",
      { class: "bar" },
      h("h1", { class: "brand" }, h("a", { href: "/" }, "Tidemark")),
      h("div", { class: "state", role: "status" }, this.#dot, this.#state, this.#heard),
      controls,
      this.#wallWords,
      h("div", { class: "bar-end" }, this.#anomalies, this.#definitions, this.#wall, this.#theme, this.#sheetButton),
    );
    for (const r of RANGES) this.#ranges.append(h("button", { "data-range": r, onclick: () => page.navigate({ range: r, span: null }) }, RANGE_NAMES[r]));
    this.#chosen.addEventListener("click", () => this.#choose());
    this.#add.addEventListener("click", () => this.openFilters());
    this.#split.addEventListener("change", () => page.navigate({ by: this.#split.value || null }));
    this.#share.addEventListener("click", () => page.navigate({ share: !page.view.share }));
    this.#compare.append(h("option", { value: "" }, "nothing"), ...COMPARISONS.map((c) => h("option", { value: c }, compared(c).name)));
    this.#compare.addEventListener("change", () => page.navigate({ compare: (this.#compare.value || null) as View["compare"] }));
    this.#anomalies.addEventListener("click", actions.anomalies);
    this.#definitions.addEventListener("click", actions.definitions);
    this.#wall.addEventListener("click", actions.wall);
    this.#sheetDefinitions.addEventListener("click", actions.definitions);
    for (const b of [this.#theme, this.#sheetTheme]) {
      b.addEventListener("click", () => page.navigate({ theme: page.scheme === "dark" ? "light" : "dark" }, false));
    }
    this.#sheetButton.addEventListener("click", () => this.sheet(!document.body.classList.contains("sheet-open")));
    document.addEventListener("click", (e) => {
      const target = e.target as HTMLElement;
      // What is clicked may be gone by now: a chip that was dropped, a value that was ticked.
      if (target.isConnected && !target.closest(".controls, .popover, .sheet-button, .dialog")) this.sheet(false);
    });
  }

  openFilters(only: string | null = null, anchor: HTMLElement = this.#add): void {
    if (anchor.getAttribute("aria-expanded") === "true") {
      closePopover();
      return;
    }
    // The chip may be drawn anew while its list is open: the list hangs from what stays.
    popover(this.#chips.contains(anchor) ? this.#chips : anchor, "Filters", filterPanel(this.#page, only));
  }

  sheet(open: boolean): void {
    document.body.classList.toggle("sheet-open", open);
    this.#sheetButton.setAttribute("aria-expanded", String(open));
  }

  /** The view or the definitions changed. */
  follow(): void {
    const { view, catalog } = this.#page;
    for (const b of this.#ranges.children) b.setAttribute("aria-pressed", String(!view.span && b.getAttribute("data-range") === view.range));
    this.#chosen.setAttribute("aria-pressed", String(view.span !== null));
    this.#chosen.replaceChildren(view.span ? spanText(view.span.from, view.span.to) : "Custom");
    setText(this.#zone, zoneName());
    this.#chips.replaceChildren(...chips(this.#page, (name, anchor) => this.openFilters(name, anchor)));
    const names = catalog.dimensions.map((d) => d.name);
    const key = names.join("\n");
    if (key !== this.#splitKey) {
      this.#splitKey = key;
      this.#split.replaceChildren(h("option", { value: "" }, "nothing"), ...names.map((n) => h("option", { value: n }, n)));
    }
    this.#split.value = view.by ?? "";
    this.#split.classList.toggle("set", view.by !== null);
    this.#share.hidden = view.by === null;
    this.#share.setAttribute("aria-pressed", String(view.share));
    this.#compare.value = view.compare ?? "";
    this.#compare.classList.toggle("set", view.compare !== null);
    const filters = Object.entries(view.where).map(([name, values]) => `${name}: ${values.map(valueText).join(", ")}`);
    const words = [view.span ? spanText(view.span.from, view.span.to) : `last ${RANGE_NAMES[view.range]}`, ...filters];
    if (view.compare) words.push(`faint: ${compared(view.compare).name}`);
    setText(this.#wallWords, words.join(" · "));
    const dark = this.#page.scheme === "dark";
    this.#theme.replaceChildren(icon(dark ? ICONS.light : ICONS.dark));
    const other = dark ? "Light colours" : "Dark colours";
    this.#theme.setAttribute("aria-label", other);
    this.#theme.title = other;
    setText(this.#sheetTheme, other);
    this.#definitions.replaceChildren(`Definitions r${catalog.revision}`);
  }

  anomalies(count: number, open: boolean): void {
    this.#anomalies.replaceChildren("Anomalies", ...(count ? [h("span", { class: "badge" }, count > 99 ? "99+" : String(count))] : []));
    this.#anomalies.setAttribute("aria-pressed", String(open));
  }

  /** How the host is, in a dot and words. */
  state(): void {
    const { connection: c, status } = this.#page;
    let kind = "live";
    let text = "Live";
    if (c.downSince) [kind, text] = ["down", `Disconnected since ${clockTime(c.downSince)}`];
    else if (!c.up) [kind, text] = ["wait", "Connecting"];
    else if (status && !status.ready) [kind, text] = ["wait", "Stale store, recovering"];
    else if (status && status.lag_ms > LAG_MS_MAX) [kind, text] = ["wait", `Behind by ${duration(status.lag_ms)}`];
    this.#dot.className = `dot ${kind}`;
    setText(this.#state, text);
    setText(this.#heard, c.downSince ? `last update ${clockTime(c.heardAt)}` : "");
    document.body.classList.toggle("is-down", c.downSince > 0);
  }

  #choose(): void {
    const { from, to } = windowAt(this.#page.view, now());
    const start = h("input", { type: "datetime-local", value: toInput(from) });
    const end = h("input", { type: "datetime-local", value: toInput(to) });
    const problem = h("p", { class: "problem", role: "alert" });
    const form = h(
      "form",
      { class: "span-form" },
      h("label", {}, "From", start),
      h("label", {}, "To", end),
      problem,
      h("button", { class: "button primary" }, "Show"),
    );
    form.addEventListener("submit", (e) => {
      e.preventDefault();
      const span = { from: Date.parse(start.value), to: Date.parse(end.value) };
      if (!(span.to - span.from >= 60_000)) {
        setText(problem, "The end must be at least a minute after the start.");
        return;
      }
      closePopover();
      this.#page.navigate({ span });
    });
    popover(this.#chosen, "A chosen time", form);
    start.focus();
  }
}
