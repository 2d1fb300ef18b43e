// A panel that hangs from a button (a sheet on a phone), closes on Escape and on a click elsewhere.
import { h } from "./dom";

let open: { close(): void } | null = null;

export function closePopover(): void {
  open?.close();
}

/** Shows `body` below `anchor`; returns the closing of it. `closed` runs however it was closed. */
export function popover(anchor: HTMLElement, label: string, body: HTMLElement, closed: () => void = () => {}): () => void {
  closePopover();
  const el = h("div", { class: "popover", role: "dialog", "aria-label": label }, body);
  const opener = document.activeElement;
  document.body.append(el);
  anchor.setAttribute("aria-expanded", "true");
  const place = (): void => {
    const a = anchor.getBoundingClientRect();
    const left = Math.max(8, Math.min(a.left, innerWidth - el.offsetWidth - 8));
    el.style.setProperty("--left", `${left}px`);
    el.style.setProperty("--top", `${a.bottom + 8}px`);
  };
  place();
  const away = (e: Event): void => {
    const target = e.target as Node;
    if (!el.contains(target) && !anchor.contains(target) && target.isConnected) close();
  };
  const key = (e: KeyboardEvent): void => {
    if (e.key !== "Escape") return;
    e.stopPropagation();
    close();
    if (opener instanceof HTMLElement) opener.focus();
  };
  const close = (): void => {
    if (open?.close !== close) return;
    open = null;
    el.remove();
    anchor.setAttribute("aria-expanded", "false");
    document.removeEventListener("pointerdown", away, true);
    document.removeEventListener("keydown", key, true);
    removeEventListener("resize", place);
    closed();
  };
  document.addEventListener("pointerdown", away, true);
  document.addEventListener("keydown", key, true);
  addEventListener("resize", place);
  open = { close };
  return close;
}
