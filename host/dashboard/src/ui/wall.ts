// The page on a wall: nothing to press, as many charts as fit, the others in turn. Knows tiles, not what is in them.
import type { Page } from "../page";
import { h } from "./dom";

const TILE_WIDTH_PX_MIN = 520;
const TILE_HEIGHT_PX_MIN = 250;
const TURN_MS = 15_000;

export interface Fit {
  columns: number;
  rows: number;
  pages: number;
}

/** How tiles fit: all on one page where they can, else evenly on as few as possible. */
export function fit(tiles: number, width: number, height: number): Fit {
  const most = { columns: Math.max(1, Math.floor(width / TILE_WIDTH_PX_MIN)), rows: Math.max(1, Math.floor(height / TILE_HEIGHT_PX_MIN)) };
  const pages = Math.max(1, Math.ceil(tiles / (most.columns * most.rows)));
  const each = Math.ceil(tiles / pages);
  const rows = Math.min(most.rows, Math.max(1, Math.ceil(each / most.columns)));
  return { columns: Math.max(1, Math.min(most.columns, Math.ceil(each / rows))), rows, pages };
}

export class Wall {
  /** Which page of how many, where there are several. */
  readonly pages = h("div", { class: "wall-pages", "aria-hidden": "true" });
  #page: Page;
  #grid: HTMLElement;
  #at = 0;
  #timer = 0;
  #lock: Promise<{ release(): Promise<void> }> | null = null;
  #filled = false;

  constructor(page: Page, grid: HTMLElement) {
    this.#page = page;
    this.#grid = grid;
    new ResizeObserver(() => this.lay()).observe(grid);
    document.addEventListener("visibilitychange", () => this.#stayAwake());
    document.addEventListener("fullscreenchange", () => {
      if (document.fullscreenElement) this.#filled = true;
      else if (this.#filled) this.leave();
    });
  }

  get #on(): boolean {
    return this.#page.view.wall;
  }

  /** By a button or a key: then the screen may be taken, too. */
  enter(): void {
    void document.documentElement.requestFullscreen?.().catch(() => {});
    void this.#page.navigate({ wall: true });
  }

  leave(): void {
    this.#filled = false;
    if (document.fullscreenElement) void document.exitFullscreen();
    if (this.#on) void this.#page.navigate({ wall: false });
  }

  /** The view may have changed. */
  follow(): void {
    const { classList } = document.body;
    if (classList.contains("wall") === this.#on) return;
    classList.toggle("wall", this.#on);
    clearInterval(this.#timer);
    if (this.#on) this.#timer = window.setInterval(() => this.#turn(), TURN_MS);
    this.#stayAwake();
    this.lay();
  }

  #turn(): void {
    this.#at++;
    this.lay();
  }

  /** Every tile in its place; those of other pages are out of sight. */
  lay(): void {
    const all = [...this.#grid.children] as HTMLElement[];
    if (!this.#on) {
      for (const tile of all) tile.classList.remove("elsewhere");
      return;
    }
    const tiles = all.filter((tile) => !tile.hidden);
    const { columns, rows, pages } = fit(tiles.length, this.#grid.clientWidth, this.#grid.clientHeight);
    this.#at %= pages;
    this.#grid.style.setProperty("--columns", String(columns));
    this.#grid.style.setProperty("--rows", String(rows));
    tiles.forEach((tile, i) => tile.classList.toggle("elsewhere", Math.floor(i / (columns * rows)) !== this.#at));
    this.pages.replaceChildren(...(pages > 1 ? Array.from({ length: pages }, (_, i) => h("i", { class: i === this.#at ? "now" : "" })) : []));
  }

  /** Browsers let go of the screen when the page is hidden, and have it only for safe origins. */
  #stayAwake(): void {
    const { wakeLock } = navigator as { wakeLock?: { request(kind: "screen"): Promise<{ release(): Promise<void> }> } };
    void this.#lock?.then((l) => l.release()).catch(() => {});
    this.#lock = null;
    if (this.#on && !document.hidden) this.#lock = wakeLock?.request("screen") ?? null;
    this.#lock?.catch(() => {});
  }
}
