// The button of a chart that hands on what it shows, and how a browser saves a file.
import { h, icon, ICONS } from "./dom";
import { closePopover, popover } from "./popover";

export interface Download {
  /** `CSV` */
  kind: string;
  what: string;
  save(): void | Promise<void>;
}

export function downloadButton(title: () => string, kinds: Download[]): HTMLButtonElement {
  const button = h("button", { class: "button icon-button download", "aria-label": "Download", title: "Download", "aria-haspopup": "dialog" }, icon(ICONS.download));
  button.addEventListener("click", () => {
    if (button.getAttribute("aria-expanded") === "true") return closePopover();
    const items = kinds.map((k) => {
      const save = (): void => {
        closePopover();
        button.focus();
        void k.save();
      };
      return h("li", {}, h("button", { class: "menu-item", onclick: save }, h("b", {}, k.kind), h("span", { class: "quiet" }, k.what)));
    });
    popover(button, `Download ${title()}`, h("ul", { class: "menu" }, ...items));
    items[0]?.querySelector("button")?.focus();
  });
  return button;
}

const KEPT_MS = 60_000; // some browsers ask where to, first

export function save(name: string, content: Blob): void {
  const url = URL.createObjectURL(content);
  h("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), KEPT_MS);
}

export function saveText(name: string, text: string): void {
  save(name, new Blob([text], { type: "text/csv;charset=utf-8" }));
}
