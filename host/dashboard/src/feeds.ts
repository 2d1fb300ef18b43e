// Where a chart's data comes from: live for a range that ends now, a query for a chosen piece of time.
// Equal wishes share one feed. Does not know who draws them.
import { query } from "./api";
import type { AnomalyMessage, Delta, ErrorMessage, Snapshot, Where } from "./contract";
import type { Live } from "./live";
import { Book } from "./series";
import { now } from "./time";
import { stepText } from "./view";

export interface FeedSpec {
  metric: string;
  by: string[];
  where: Where;
  stepMs: number;
  /** A range that ends now: live. */
  live?: { range: string; rangeMs: number };
  /** A chosen piece of time; `to` is the last point's time. */
  span?: { from: number; to: number };
}

export interface Feed {
  readonly spec: FeedSpec;
  book: Book | null;
  error: string | null;
}

interface Open extends Feed {
  id: string;
  key: string;
  listeners: Set<() => void>;
}

const LINGER_MS = 1_000;

export class Feeds {
  #live: Live;
  #byKey = new Map<string, Open>();
  #byId = new Map<string, Open>();
  #counter = 0;
  /** How often an open query that reaches into the present is asked again. */
  refreshMs = 10_000;

  constructor(live: Live) {
    this.#live = live;
    const again = (): void => {
      setTimeout(again, this.refreshMs);
      if (document.hidden) return;
      for (const f of this.#byKey.values()) {
        if (f.spec.span && f.book && f.spec.span.to >= f.book.provisionalFrom) void this.#query(f);
      }
    };
    setTimeout(again, this.refreshMs);
  }

  open(spec: FeedSpec, listener: () => void): { feed: Feed; close(): void } {
    const key = JSON.stringify(spec);
    let feed = this.#byKey.get(key);
    if (!feed) {
      feed = { id: "", key, spec, book: null, error: null, listeners: new Set() };
      this.#byKey.set(key, feed);
      this.#ask(feed);
    }
    feed.listeners.add(listener);
    const open = feed;
    return {
      feed,
      // A closed feed lingers: what is closed and opened again while the view changes stays.
      close: () => {
        open.listeners.delete(listener);
        setTimeout(() => this.#reap(open), LINGER_MS);
      },
    };
  }

  /** After a reconnection everything live is asked again: what changed meanwhile, where the host still knows, else anew. */
  reopen(): void {
    for (const f of this.#byKey.values()) if (f.spec.live || f.error) this.#ask(f, true);
  }

  /** After new definitions: what had failed may work now. */
  retryFailed(): void {
    for (const f of this.#byKey.values()) if (f.error) this.#ask(f);
  }

  get allEmpty(): boolean {
    return [...this.#byKey.values()].every((f) => f.book === null || f.book.empty);
  }

  snapshot(m: Snapshot): void {
    const feed = this.#byId.get(m.id);
    if (!feed) return;
    feed.book = new Book(m);
    feed.error = null;
    this.#tell(feed);
  }

  delta(m: Delta): void {
    const feed = this.#byId.get(m.id);
    if (!feed?.book) return;
    if (!feed.book.apply(m)) {
      this.#ask(feed);
      return;
    }
    feed.book.trim(now() - feed.spec.live!.rangeMs - 2 * feed.spec.stepMs);
    this.#tell(feed);
  }

  anomaly(m: AnomalyMessage): void {
    const feed = this.#byId.get(m.id);
    if (!feed?.book) return;
    feed.book.mark(m);
    this.#tell(feed);
  }

  failed(m: ErrorMessage): void {
    const feed = m.id === undefined ? undefined : this.#byId.get(m.id);
    if (!feed) return;
    feed.error = m.message;
    this.#tell(feed);
  }

  #ask(feed: Open, again = false): void {
    if (feed.spec.span) {
      void this.#query(feed);
      return;
    }
    if (!this.#live.up) return;
    // A new id each time: what was still under way for the old one is not mistaken for an answer.
    if (feed.id) this.#forget(feed);
    feed.id = `s${++this.#counter}`;
    this.#byId.set(feed.id, feed);
    const { metric, by, where, stepMs, live } = feed.spec;
    const subscription = { id: feed.id, metric, range: live!.range, step: stepText(stepMs), by, where };
    const known = again && !feed.error ? feed.book : null;
    if (known) this.#live.send({ op: "resume", seq: known.seq, epoch: known.epoch, ...subscription });
    else this.#live.send({ op: "subscribe", ...subscription });
  }

  async #query(feed: Open): Promise<void> {
    const { from, to } = feed.spec.span!;
    try {
      const answer = await query({ ...feed.spec, from, to: to + feed.spec.stepMs });
      feed.book = new Book(answer);
      feed.error = null;
    } catch (e) {
      // What is shown stays while the host is away; the state in the bar says why nothing moves.
      if (feed.book) return;
      feed.error = e instanceof Error ? e.message : String(e);
    }
    this.#tell(feed);
  }

  #tell(feed: Open): void {
    for (const l of feed.listeners) l();
  }

  #forget(feed: Open): void {
    this.#live.send({ op: "unsubscribe", id: feed.id });
    this.#byId.delete(feed.id);
  }

  #reap(feed: Open): void {
    if (feed.listeners.size || this.#byKey.get(feed.key) !== feed) return;
    this.#byKey.delete(feed.key);
    if (feed.id) this.#forget(feed);
  }
}
