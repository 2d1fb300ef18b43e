// What is said before the numbers: a rejected file, and how to send the first event.
import { key } from "../api";
import type { Diagnostic } from "../contract";
import { nearTime } from "../time";
import { h } from "./dom";

/** Stays until a good file comes. */
export function rejectedBanner(at: number, diagnostics: Diagnostic[]): HTMLElement {
  const file = diagnostics[0]?.file.split(/[\\/]/).at(-1) || "The definitions file";
  const n = diagnostics.length;
  return h(
    "div",
    { class: "banner", role: "alert" },
    h("p", {}, h("b", {}, `${file} was rejected at ${nearTime(at)}`), ` with ${n === 1 ? "one mistake" : `${n} mistakes`}. What was defined before runs on.`),
    ...diagnostics.map((d) => h("pre", { class: "rendered" }, d.rendered)),
  );
}

/** Stays while the store that hosts share does not answer. */
export function staleBanner(since: number, reason: string): HTMLElement {
  return h(
    "div",
    { class: "banner", role: "status" },
    h("p", {}, h("b", {}, `The numbers are as of ${nearTime(since)}`), `: ${reason}. Events are still taken, and counted when it is back.`),
  );
}

export function emptyNotice(): HTMLElement {
  const auth = key() ? ` -H 'authorization: Bearer WRITE_KEY'` : "";
  const lines = [
    `curl ${location.origin}/v1/events -H 'content-type: application/json'${auth} \\`,
    `  -d '{"type":"page_view","user_id":"u1"}'`,
  ].join("\n");
  const copy = h("button", { class: "button" }, "Copy");
  copy.addEventListener("click", () => {
    void navigator.clipboard?.writeText(lines).then(() => (copy.textContent = "Copied"));
  });
  return h(
    "section",
    { class: "empty" },
    h("h2", {}, "No event yet"),
    h("p", {}, "Send one, and this page comes alive by itself:"),
    h("pre", {}, lines),
    navigator.clipboard ? copy : null,
  );
}
