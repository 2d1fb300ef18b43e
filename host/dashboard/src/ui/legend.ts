// The list of a chart's lines with their values. A click isolates one, with a modifier key it adds.
import type { Pick } from "./chart";
import { h, setText } from "./dom";

interface Row {
  el: HTMLElement;
  value: HTMLElement;
}

/** "N more" opens at most this many of the lines that are not drawn. */
const MORE_MAX = 32;

export class Legend {
  readonly el = h("ul", { class: "legend", hidden: true });
  #rows = new Map<string, Row>();
  #listed: Pick[] = [];
  #rest: Pick[] = [];
  #open = false;
  #signature = "";
  #drawn: string[] = [];
  #click: (key: string, add: boolean) => void;

  constructor(click: (key: string, add: boolean) => void) {
    this.#click = click;
  }

  list(listed: Pick[], rest: Pick[]): void {
    this.#listed = listed;
    this.#rest = rest.filter((r) => !listed.some((l) => l.key === r.key)).slice(0, MORE_MAX);
  }

  show(drawn: Pick[], isolated: Set<string>, hidden: number): void {
    this.#drawn = drawn.map((p) => p.key);
    const labels = drawn[0]?.line.labels ?? {};
    const split = drawn.length > 0 && (this.#listed.length > 1 || Object.keys(labels).length > 0);
    this.el.hidden = !split;
    if (!split) {
      this.#signature = "";
      this.#rows.clear();
      this.el.replaceChildren();
      return;
    }
    const rows = this.#open ? [...this.#listed, ...this.#rest] : this.#listed;
    const signature = JSON.stringify([rows.map((p) => [p.key, p.colour]), [...isolated], hidden, this.#open]);
    if (signature === this.#signature) return;
    this.#signature = signature;
    this.#rows.clear();
    this.el.replaceChildren(...rows.map((p) => this.#row(p, isolated)));
    if (hidden > 0) {
      const toggle = (): void => {
        this.#open = !this.#open;
        this.show(drawn, isolated, hidden);
      };
      this.el.append(h("li", {}, h("button", { class: "more", onclick: toggle, "aria-expanded": String(this.#open) }, this.#open ? "fewer" : `${hidden} more`)));
    }
  }

  /** In the order of the drawn lines. */
  values(texts: string[]): void {
    this.#drawn.forEach((key, i) => {
      const row = this.#rows.get(key);
      if (row) setText(row.value, texts[i] ?? "");
    });
  }

  mark(key: string | null): void {
    for (const [k, row] of this.#rows) row.el.classList.toggle("near", k === key);
  }

  #row(p: Pick, isolated: Set<string>): HTMLElement {
    const value = h("span", { class: "value" });
    const off = isolated.size > 0 && !isolated.has(p.key);
    const swatch = h("i", { class: p.dashed ? "swatch dashed" : "swatch" });
    swatch.style.setProperty("--c", p.colour);
    const button = h(
      "button",
      {
        "aria-pressed": String(isolated.has(p.key)),
        title: "Click: only this one. With Ctrl or Shift: this one too",
        onclick: (e: MouseEvent) => this.#click(p.key, e.ctrlKey || e.metaKey || e.shiftKey),
      },
      swatch,
      h("span", { class: "name" }, p.name),
      value,
    );
    const el = h("li", { class: off || !this.#drawn.includes(p.key) ? "off" : "" }, button);
    this.#rows.set(p.key, { el, value });
    return el;
  }
}
