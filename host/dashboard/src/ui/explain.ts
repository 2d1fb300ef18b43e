// The panel that says why a point is what it is: the sentence first, then numbers, what moved it, and some of its events.
// Knows the answer's shape, not charts.
import { explain } from "../api";
import type { Explanation } from "../contract";
import { exact, full, NO_VALUE, short, signed, valueText } from "../format";
import type { Asked, Page } from "../page";
import { clockTime, covered, spanText } from "../time";
import { h, icon, ICONS, setText } from "./dom";

const PATIENCE_MS = 300; // an answer that comes sooner needs no word
const MOVERS_SHOWN = 6;
const EVENT_INDENT = 2;

export class Explain {
  readonly el: HTMLElement;
  #page: Page;
  #title = h("h2", { tabindex: -1 });
  #when = h("p", { class: "quiet" });
  #body = h("div", { class: "explain-body", "aria-live": "polite" });
  #opener: Element | null = null;
  #asked: () => void;

  /** `asked` hears when another point is asked about, or none any more. */
  constructor(page: Page, asked: () => void) {
    this.#page = page;
    this.#asked = asked;
    this.el = h(
      "aside",
      { class: "explain", role: "dialog", "aria-label": "Why", hidden: true },
      h("header", {}, h("div", {}, this.#title, this.#when), h("button", { class: "button icon-button", "aria-label": "Close", onclick: () => this.close() }, icon(ICONS.close))),
      this.#body,
    );
    this.el.addEventListener("keydown", (e) => {
      if (e.key !== "Escape") return;
      e.stopPropagation();
      this.close();
    });
  }

  open(asked: Asked): void {
    if (this.el.hidden) this.#opener = document.activeElement;
    this.#page.asked = asked;
    const swatch = h("i", { class: "swatch" });
    swatch.style.setProperty("--c", asked.colour);
    this.#title.replaceChildren(asked.metric.title, ...(asked.name === null ? [] : [h("span", { class: "who" }, swatch, asked.name)]));
    setText(this.#when, covered(asked.t, asked.stepMs, asked.metric.window_ms));
    this.el.hidden = false;
    this.el.scrollTop = 0;
    this.#title.focus({ preventScroll: true });
    this.#asked();
    void this.#answer(asked);
  }

  close(): void {
    if (this.el.hidden) return;
    this.el.hidden = true;
    this.#page.asked = null;
    if (this.#opener instanceof HTMLElement && this.#opener.isConnected) this.#opener.focus({ preventScroll: true });
    this.#asked();
  }

  async #answer(asked: Asked): Promise<void> {
    const current = (): boolean => this.#page.asked === asked;
    this.#body.setAttribute("aria-busy", "true");
    const wait = setTimeout(() => current() && this.#body.replaceChildren(h("p", { class: "quiet" }, "Looking")), PATIENCE_MS);
    try {
      const answer = await explain({ metric: asked.metric.name, by: asked.by, where: asked.where, stepMs: asked.stepMs }, asked.t);
      if (current()) this.#body.replaceChildren(...this.#told(asked, answer));
    } catch (e) {
      if (current()) this.#body.replaceChildren(h("p", { class: "sentence" }, "This point could not be explained."), h("p", { class: "quiet" }, e instanceof Error ? e.message : String(e)));
    } finally {
      clearTimeout(wait);
      if (current()) this.#body.removeAttribute("aria-busy");
    }
  }

  #told(asked: Asked, a: Explanation): HTMLElement[] {
    return [
      h("p", { class: a.anomalous ? "sentence odd" : "sentence" }, firstLarge(a.sentence)),
      facts(asked, a),
      this.#movers(asked, a),
      events(a),
    ];
  }

  /** Bars are as wide as the share; without one, as the part of the largest change. */
  #movers(asked: Asked, a: Explanation): HTMLElement {
    const size = (m: Explanation["movers"][number]): number => Math.abs(m.share ?? m.change);
    const shares = a.movers.some((m) => m.share !== null);
    const most = Math.max(shares ? 1 : 0, ...a.movers.map(size)) || 1;
    const rows = a.movers.slice(0, MOVERS_SHOWN).map((m) => {
      const bar = h("i", {});
      bar.style.width = `${(100 * size(m)) / most}%`;
      const was = `${short(m.expected, asked.metric)} → ${short(m.actual, asked.metric)}`;
      const only = (): void => void this.#page.navigate({ where: { ...this.#page.view.where, [m.dimension]: [m.value] } });
      return h(
        "li",
        {},
        h(
          "button",
          { class: m.share !== null && m.share < 0 ? "mover against" : "mover", onclick: only, title: "Filter every chart to it" },
          h("span", { class: "what" }, h("span", { class: "quiet" }, m.dimension), valueText(m.value)),
          h("b", {}, m.share === null ? signed(m.change, asked.metric) : `${exact(m.share * 100, 0)}\u202f%`),
          h("span", { class: "was" }, was),
          h("span", { class: "bar-of" }, bar),
        ),
      );
    });
    const left = a.left_out.length ? `Not looked at, with too many values: ${a.left_out.join(", ")}.` : "";
    const none = asked.metric.dimensions.length ? "No value of a dimension stands out." : "The metric has no dimensions.";
    return h(
      "section",
      {},
      h("h3", {}, "What moved it", h("span", { class: "unit" }, rows.length ? "mean before → now" : "")),
      rows.length ? h("ul", { class: "movers" }, ...rows) : h("p", { class: "quiet" }, none),
      left !== "" && h("p", { class: "quiet" }, left),
    );
  }
}

/** A sentence begins large; the host's may begin with a number or a word. */
function firstLarge(text: string): string {
  return text.slice(0, 1).toUpperCase() + text.slice(1);
}

function facts(asked: Asked, a: Explanation): HTMLElement {
  const value = (v: number | null): string => full(v, asked.metric);
  const rows: [string, string | Node][] = [["Value", h("span", {}, h("b", {}, value(a.value)), a.provisional ? ", may still change" : "")]];
  if (a.rule !== null) {
    rows.push(["Expected", value(a.expected)]);
    if (a.lower !== null || a.upper !== null) rows.push(["Band", `${a.lower === null ? "any" : value(a.lower)} – ${a.upper === null ? "any" : value(a.upper)}`]);
    rows.push(["Rule", `${a.rule}${a.score === null ? "" : `, score ${exact(a.score, 1)}`}${a.anomalous ? "" : ", no anomaly"}`]);
  } else {
    rows.push(["Mean before", value(a.baseline.mean)], ["Rule", "none judges this series"]);
  }
  rows.push(["Baseline", spanText(a.baseline.from, a.baseline.to)]);
  rows.push(["Corrected", a.corrections === 0 ? "never" : `${a.corrections === 1 ? "once" : `${exact(a.corrections)} times`} by late events`]);
  rows.push(["Definition", h("span", {}, `revision ${a.revision}`, h("code", {}, a.expression))]);
  return h("dl", {}, ...rows.flatMap(([k, v]) => [h("dt", {}, k), h("dd", {}, v)]));
}

function events(a: Explanation): HTMLElement {
  const rows = a.events.map((e) => {
    const added = Object.entries(e.filled).map(([k, v]) => `${k} = ${v === "" ? NO_VALUE : String(v)}`);
    return h(
      "li",
      {},
      h(
        "details",
        {},
        h("summary", {}, h("time", {}, clockTime(e.time)), h("code", {}, JSON.stringify(e.event))),
        h("pre", {}, JSON.stringify(e.event, null, EVENT_INDENT)),
        added.length > 0 && h("p", { class: "quiet" }, `Filled in: ${added.join(", ")}`),
      ),
    );
  });
  return h(
    "section",
    {},
    h("h3", {}, "Events", h("span", { class: "unit" }, rows.length ? `${rows.length} of those it counts` : "")),
    rows.length ? h("ul", { class: "samples" }, ...rows) : h("p", { class: "quiet" }, "The host has none at hand: it looks in the newest part of its own journal."),
  );
}
