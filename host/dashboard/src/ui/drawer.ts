// The definitions drawer: which revision runs, what came with it, what the plugins cost, what was rejected.
import { getDefinitions, getPlugins, getRejects, getStatus } from "../api";
import type { DefinitionsAnswer, Plugin, RejectsAnswer, Status } from "../contract";
import { compact, exact } from "../format";
import { clockTime, dateTime, duration } from "../time";
import { h, icon, ICONS } from "./dom";

const REJECTS_SHOWN = 50;
const REFRESH_MS = 5_000;

export class Drawer {
  readonly el: HTMLDialogElement;
  #body = h("div", { class: "drawer-body" });
  #timer = 0;
  #signature = "";

  constructor() {
    const close = (): void => this.el.close();
    this.el = h(
      "dialog",
      { class: "drawer", "aria-label": "Definitions" },
      h("header", {}, h("h2", {}, "Definitions"), h("button", { class: "button icon-button", "aria-label": "Close", onclick: close }, icon(ICONS.close))),
      this.#body,
    );
    this.el.addEventListener("click", (e) => {
      if (e.target === this.el) close();
    });
    this.el.addEventListener("close", () => clearTimeout(this.#timer));
  }

  toggle(): void {
    if (this.el.open) {
      this.el.close();
      return;
    }
    this.el.showModal();
    void this.refresh();
  }

  async refresh(): Promise<void> {
    if (!this.el.open) return;
    clearTimeout(this.#timer);
    try {
      const [definitions, plugins, rejects, status] = await Promise.all([getDefinitions(), getPlugins(), getRejects(REJECTS_SHOWN), getStatus()]);
      const signature = JSON.stringify([definitions, plugins, rejects, { ...status, now: 0 }]);
      if (signature !== this.#signature) {
        this.#signature = signature;
        this.#body.replaceChildren(revision(definitions), pluginList(plugins), rejectList(rejects), host(status));
      }
    } catch (e) {
      if (!this.#signature) this.#body.replaceChildren(h("p", { class: "quiet" }, e instanceof Error ? e.message : String(e)));
    }
    if (this.el.open) this.#timer = window.setTimeout(() => void this.refresh(), REFRESH_MS);
  }
}

function section(title: string, note: string, ...body: (Node | null)[]): HTMLElement {
  return h("section", {}, h("h3", {}, title, h("span", { class: "unit" }, note)), ...body);
}

function facts(rows: [string, string | Node][]): HTMLElement {
  return h("dl", {}, ...rows.flatMap(([k, v]) => [h("dt", {}, k), h("dd", {}, v)]));
}

function revision(d: DefinitionsAnswer): HTMLElement {
  const rows: [string, string | Node][] = [
    ["Applied", `${dateTime(d.applied_at)}`],
    ["Digest", h("code", { title: d.digest }, d.digest.slice(0, 16))],
  ];
  for (const kind of ["added", "changed", "removed", "unchanged"] as const) {
    const names = d.last[kind] ?? [];
    if (names.length) rows.push([kind[0]!.toUpperCase() + kind.slice(1), h("span", { class: `diff ${kind}` }, names.join(", "))]);
  }
  const bad = d.last.outcome === "rejected";
  if (bad) rows.push(["Last file", h("span", { class: "bad" }, `rejected ${dateTime(d.last.at)}, ${d.last.diagnostics.length === 1 ? "1 mistake" : `${d.last.diagnostics.length} mistakes`}`)]);
  return section(`Revision ${d.revision}`, "", facts(rows), ...d.last.diagnostics.filter(() => bad).map((x) => h("pre", { class: "rendered" }, x.rendered)));
}

function pluginList(plugins: Plugin[]): HTMLElement {
  const rows = plugins.map((p) => {
    const asked = p.memo_hits + p.memo_misses;
    return h(
      "li",
      { class: "plugin" },
      h(
        "div",
        { class: "plugin-head" },
        h("b", {}, p.name),
        h("span", { class: "quiet" }, `${p.kind} ${p.version}`),
        h("span", { class: p.state === "live" ? "tag good" : "tag bad" }, p.state),
      ),
      h("p", { class: "quiet" }, p.description),
      facts([
        ["Used by", p.used_by.join(", ") || "nothing"],
        ["Cost", `${nanoseconds(p.ns_per_row)} a row, ${compact(p.rows)} rows in ${compact(p.calls)} calls`],
        ...(asked ? ([["Remembered", `${((p.memo_hits / asked) * 100).toPrecision(3)} % of ${compact(asked)} values`]] as [string, string][]) : []),
        ...(p.traps ? ([["Traps", h("span", { class: "bad" }, exact(p.traps))]] as [string, Node][]) : []),
        ...(p.last_error ? ([["Last error", h("span", { class: "bad" }, p.last_error)]] as [string, Node][]) : []),
        ["Digest", h("code", { title: p.digest }, p.digest.slice(0, 16))],
      ]),
    );
  });
  return section("Plugins", String(plugins.length || ""), rows.length ? h("ul", {}, ...rows) : h("p", { class: "quiet" }, "No plugin is used."));
}

function nanoseconds(ns: number): string {
  if (ns < 1e3) return `${compact(ns)} ns`;
  return ns < 1e6 ? `${compact(ns / 1e3)} µs` : `${compact(ns / 1e6)} ms`;
}

function rejectList(r: RejectsAnswer): HTMLElement {
  const rows = r.rejects.map((x) =>
    h(
      "li",
      { class: "reject" },
      h("div", { class: "reject-head" }, h("b", {}, x.reason), h("span", { class: "quiet" }, `${clockTime(x.at)} · ${x.source}`)),
      h("code", {}, x.event),
    ),
  );
  return section("Rejected events", compact(r.total), rows.length ? h("ul", {}, ...rows) : h("p", { class: "quiet" }, "None since the start."));
}

function host(s: Status): HTMLElement {
  return section(
    "Host",
    s.version,
    facts([
      ["Running for", duration(s.now - s.started_at)],
      ["Events", `${exact(s.events_total)}, ${compact(s.events_per_s)} a second`],
      ["Late", exact(s.late_total)],
      ["Duplicates", exact(s.duplicates_total)],
      ["Rejected", exact(s.rejected_total)],
      ["Lag", `${compact(s.lag_ms)} ms`],
      ["Connections", exact(s.connections)],
    ]),
  );
}
