// The feeds that one chart draws from, each under the name of its part. Knows which are open, not what they are for.
import type { Feed, Feeds, FeedSpec } from "./feeds";

interface Open {
  key: string;
  feed: Feed;
  close(): void;
}

export class Sources {
  #feeds: Feeds;
  #changed: () => void;
  #open = new Map<string, Open>();

  constructor(feeds: Feeds, changed: () => void) {
    this.#feeds = feeds;
    this.#changed = changed;
  }

  /** Opens what is wanted and closes what is not; what is wanted as before stays. Says which parts are new. */
  want(parts: Map<string, FeedSpec>): string[] {
    const fresh: string[] = [];
    for (const [part, spec] of parts) {
      const key = JSON.stringify(spec);
      const have = this.#open.get(part);
      if (have?.key === key) continue;
      have?.close();
      this.#open.set(part, { key, ...this.#feeds.open(spec, this.#changed) });
      fresh.push(part);
    }
    for (const [part, open] of this.#open) {
      if (parts.has(part)) continue;
      open.close();
      this.#open.delete(part);
    }
    return fresh;
  }

  get(part: string): Feed | undefined {
    return this.#open.get(part)?.feed;
  }

  close(): void {
    this.want(new Map());
  }
}
