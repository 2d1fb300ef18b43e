// The searchable list of every dimension's values with their counts; a tick filters all charts.
import { compact, valueText } from "../format";
import type { DimensionValue, Page } from "../page";
import { h } from "./dom";

const SHOWN_MAX = 8; // values of a dimension without a search
const FOUND_MAX = 50;
const NAME_LETTERS_MIN = 3; // so much of a dimension's own name finds all its values

export function filterPanel(page: Page, only: string | null): HTMLElement {
  const search = h("input", { type: "search", class: "search", placeholder: "Find a value", "aria-label": "Find a value", autocomplete: "off", spellcheck: "false" });
  const list = h("div", { class: "filter-list" });
  const loaded = new Map<string, DimensionValue[]>();
  const names = page.catalog.dimensions.map((d) => d.name).sort((a, b) => Number(b === only) - Number(a === only));
  const draw = (): void => {
    const wanted = search.value.trim().toLowerCase();
    const groups = names.map((name) => group(page, name, loaded.get(name), wanted, draw)).filter((g) => g !== null);
    list.replaceChildren(...(groups.length ? groups : [h("p", { class: "quiet" }, wanted ? "No such value" : "No dimensions are defined")]));
  };
  search.addEventListener("input", draw);
  search.addEventListener("keydown", (e) => {
    if (e.key !== "Enter") return;
    list.querySelector<HTMLInputElement>("input")?.click();
  });
  for (const name of names) {
    void page.values(name, true).then((v) => (loaded.set(name, v), draw()), () => (loaded.set(name, []), draw()));
  }
  draw();
  requestAnimationFrame(() => search.focus());
  return h("div", { class: "filter-panel" }, search, list);
}

function group(page: Page, name: string, values: DimensionValue[] | undefined, wanted: string, redraw: () => void): HTMLElement | null {
  const chosen = page.view.where[name] ?? [];
  const named = wanted === "" || (wanted.length >= NAME_LETTERS_MIN && name.toLowerCase().startsWith(wanted));
  // What is chosen is always listed, seen or not: it must be possible to take it back.
  const all = [...chosen.filter((c) => !values?.some((v) => v.value === c)).map((value) => ({ value, count: 0 })), ...(values ?? [])];
  const found = all.filter((v) => named || valueText(v.value).toLowerCase().includes(wanted));
  if (wanted && !found.length) return null;
  const most = wanted && !named ? FOUND_MAX : Math.max(SHOWN_MAX, chosen.length);
  const first = found.toSorted((a, b) => Number(chosen.includes(b.value)) - Number(chosen.includes(a.value))).slice(0, most);
  const rows = first.map((v) => {
    const box = h("input", { type: "checkbox", ...(chosen.includes(v.value) ? { checked: true } : {}) });
    box.addEventListener("change", () => {
      toggle(page, name, v.value, box.checked);
      redraw();
    });
    return h("label", { class: "filter-row" }, box, h("span", { class: "name" }, valueText(v.value)), h("span", { class: "count" }, v.count ? compact(v.count) : ""));
  });
  const rest = found.length - first.length;
  return h(
    "fieldset",
    {},
    h("legend", {}, name),
    ...(values === undefined ? [h("p", { class: "quiet" }, "…")] : rows.length ? rows : [h("p", { class: "quiet" }, "No values yet")]),
    rest > 0 && h("p", { class: "quiet" }, `${compact(rest)} more, search for them`),
  );
}

function toggle(page: Page, name: string, value: string, on: boolean): void {
  const values = (page.view.where[name] ?? []).filter((v) => v !== value);
  if (on) values.push(value);
  const where = { ...page.view.where };
  if (values.length) where[name] = values;
  else delete where[name];
  page.navigate({ where });
}

/** `country: US, DE ×` for each filtered dimension. */
export function chips(page: Page, edit: (name: string, anchor: HTMLElement) => void): HTMLElement[] {
  return Object.keys(page.view.where)
    .sort()
    .map((name) => {
      const values = page.view.where[name]!;
      const shown = values.slice(0, 3).map(valueText).join(", ") + (values.length > 3 ? ` +${values.length - 3}` : "");
      const open = h("button", { class: "chip-text", title: values.map(valueText).join(", ") }, h("span", { class: "chip-name" }, `${name}: `), shown);
      open.addEventListener("click", () => edit(name, open));
      const drop = (): void => {
        const where = { ...page.view.where };
        delete where[name];
        page.navigate({ where });
      };
      return h("span", { class: "chip" }, open, h("button", { class: "chip-drop", "aria-label": `Remove the filter on ${name}`, onclick: drop }, "×"));
    });
}
