// Two small dialogs: the keys of the keyboard, and the host's key.
import { h } from "./dom";

const KEYS: [string, string][] = [
  ["/", "filter"],
  ["1 … 5", "1 h, 6 h, 24 h, 7 d, 30 d"],
  ["s", "split by the next dimension"],
  ["%", "split counts and sums as shares of their total"],
  ["c", "compare with yesterday, last week"],
  ["a", "anomalies"],
  ["d", "definitions, plugins, rejected events"],
  ["w", "full screen, for a wall; Esc ends it"],
  ["t", "light or dark"],
  ["← →", "move the crosshair of the chart in focus, with Shift by ten"],
  ["↑ ↓", "to the line above, below"],
  ["Enter, click", "why the point is what it is"],
  ["Home End", "crosshair to the first, the last point"],
  ["drag", "zoom into a piece of time"],
  ["double click, z", "back out of the zoom"],
  ["Esc", "close what is open"],
  ["?", "these keys"],
];

export function keysDialog(): HTMLDialogElement {
  const rows = KEYS.flatMap(([k, what]) => [h("dt", {}, h("kbd", {}, k)), h("dd", {}, what)]);
  const el = h("dialog", { class: "dialog", "aria-label": "Keys" }, h("h2", {}, "Keys"), h("dl", { class: "keys" }, ...rows));
  el.addEventListener("click", () => el.close());
  return el;
}

/** Asks for the read key; resolves when one was given. */
export function askKey(): Promise<string> {
  return new Promise((given) => {
    const input = h("input", { type: "password", "aria-label": "Read key", autocomplete: "current-password", required: true });
    const el = h(
      "dialog",
      { class: "dialog" },
      h("form", { method: "dialog" }, h("h2", {}, "This host wants a key"), h("p", { class: "quiet" }, "A read key. It is kept until this tab is closed."), input, h("button", { class: "button primary" }, "Continue")),
    );
    el.addEventListener("cancel", (e) => e.preventDefault());
    el.addEventListener("close", () => {
      el.remove();
      given(input.value);
    });
    document.body.append(el);
    el.showModal();
  });
}
