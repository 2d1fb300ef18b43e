// Building the page's elements in a line each. Text is always text, never markup.

type Child = Node | string | null | undefined | false;
type Props = Record<string, unknown>;

export function h<K extends keyof HTMLElementTagNameMap>(tag: K, props: Props = {}, ...children: Child[]): HTMLElementTagNameMap[K] {
  const el = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) el.addEventListener(name.slice(2), value as EventListener);
    else if (name === "class") el.className = String(value);
    else el.setAttribute(name, value === true ? "" : String(value));
  }
  el.append(...children.filter((c): c is Node | string => Boolean(c)));
  return el;
}

const SVG = "http://www.w3.org/2000/svg";

export function svg(tag: string, props: Record<string, string | number>, ...children: Node[]): SVGElement {
  const el = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(props)) el.setAttribute(name, String(value));
  el.append(...children);
  return el;
}

/** A 16 px line icon. */
export function icon(path: string): SVGElement {
  return svg(
    "svg",
    { viewBox: "0 0 16 16", width: 16, height: 16, class: "icon", "aria-hidden": "true" },
    svg("path", { d: path, fill: "none", stroke: "currentColor", "stroke-width": 1.5, "stroke-linecap": "round", "stroke-linejoin": "round" }),
  );
}

export const ICONS = {
  close: "M4 4l8 8M12 4l-8 8",
  plus: "M8 3v10M3 8h10",
  light: "M8 5a3 3 0 100 6 3 3 0 000-6M8 1v1.5M8 13.5V15M1 8h1.5M13.5 8H15M3 3l1 1M12 12l1 1M3 13l1-1M12 4l1-1",
  dark: "M13 9.5A5.5 5.5 0 016.5 3 5.5 5.5 0 1013 9.5",
  tune: "M2 5h7M13 5h1M2 11h1M7 11h7M11 3.5v3M5 9.5v3",
  download: "M8 2.5v7.5M4.5 7L8 10.5 11.5 7M3 13.5h10",
  wall: "M2.5 6V2.5H6M10 2.5h3.5V6M13.5 10v3.5H10M6 13.5H2.5V10",
  chevron: "M4 6l4 4 4-4",
} as const;

export function setText(el: Element, text: string): void {
  if (el.textContent !== text) el.textContent = text;
}

/** Rows keyed by name are kept, moved, made and dropped; `make` is called for new ones only. */
export function keyed<T extends { el: HTMLElement }>(parent: HTMLElement, have: Map<string, T>, want: string[], make: (key: string) => T): void {
  for (const [key, row] of have) {
    if (want.includes(key)) continue;
    row.el.remove();
    have.delete(key);
  }
  want.forEach((key, i) => {
    let row = have.get(key);
    if (!row) have.set(key, (row = make(key)));
    if (parent.children[i] !== row.el) parent.insertBefore(row.el, parent.children[i] ?? null);
  });
}
