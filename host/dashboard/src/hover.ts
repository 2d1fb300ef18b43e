// The crosshair that all charts share: one time, pointed at in one of them.
import { soon } from "./frame";

/** A pointer left lying on a chart must not hold the page still for ever. */
const IDLE_MS = 30_000;

export class Hover {
  t: number | null = null;
  source: unknown = null;
  #moved = 0;
  #listeners = new Set<(t: number | null, source: unknown) => void>();
  #fire = (): void => {
    for (const l of this.#listeners) l(this.t, this.source);
  };

  listen(l: (t: number | null, source: unknown) => void): () => void {
    this.#listeners.add(l);
    return () => this.#listeners.delete(l);
  }

  set(t: number | null, source: unknown): void {
    this.#moved = performance.now();
    if (t === this.t && source === this.source) return;
    this.t = t;
    this.source = source;
    soon(this.#fire);
  }

  /** Someone is pointing: what they point at must not move. */
  get holding(): boolean {
    return this.t !== null && performance.now() - this.#moved < IDLE_MS;
  }
}
