// What happened to the host and its definitions, for the time axis. The host tells its last start and its last change; what came
// before them the page knows as far as it was open.
import type { DefinitionsAnswer, Status } from "./contract";

export interface Happening {
  t: number;
  text: string;
}

/** A start applies the definitions, too: that is no change of its own. */
const START_MS = 10_000;
const KEPT_MAX = 50;

const POINTED_PARTS = 150; // so many places of a chart can be told apart with a pointer

/** Those about where is pointed at: a step may be narrower than that. */
export function near(all: Happening[], t: number, stepMs: number, window: { from: number; to: number }): Happening[] {
  const most = Math.max(stepMs, (window.to - window.from) / POINTED_PARTS);
  return all.filter((h) => Math.abs(h.t - t) <= most);
}

/** Those of the drawn time; what happens in the step that is growing stands at its beginning. */
export function within(all: Happening[], { from, to }: { from: number; to: number }, stepMs: number): Happening[] {
  return all.filter((h) => h.t >= from && h.t < to + stepMs).map((h) => (h.t > to ? { ...h, t: to } : h));
}

export class Happenings {
  list: Happening[] = [];

  /** True when it is news. */
  started(status: Pick<Status, "started_at">): boolean {
    return this.#add({ t: status.started_at, text: "host started" });
  }

  /** `started_at` of the host that says so. */
  defined(d: Pick<DefinitionsAnswer, "revision" | "applied_at" | "last">, startedAt: number): boolean {
    if (Math.abs(d.applied_at - startedAt) < START_MS) return false;
    const { outcome, added, changed, removed } = d.last;
    const parts = outcome === "applied" ? [...added.map((n) => `+${n}`), ...changed, ...removed.map((n) => `−${n}`)] : [];
    const names = parts.length > 3 ? `${parts.length} metrics` : parts.join(", ");
    return this.#add({ t: d.applied_at, text: `definitions r${d.revision}${names && `: ${names}`}` });
  }

  #add(happening: Happening): boolean {
    const known = this.list.find((h) => h.t === happening.t);
    if (known?.text === happening.text) return false;
    this.list = [...this.list.filter((h) => h !== known), happening].sort((a, b) => a.t - b.t).slice(-KEPT_MAX);
    return true;
  }
}
