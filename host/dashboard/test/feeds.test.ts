import { beforeEach, expect, test, vi } from "vitest";
import type { Delta, Snapshot } from "../src/contract";
import { Feeds, type FeedSpec } from "../src/feeds";
import type { Live } from "../src/live";

const M = 60_000;
const spec: FeedSpec = { metric: "events", by: ["country"], where: {}, stepMs: M, live: { range: "1h", rangeMs: 60 * M } };
let said: Record<string, unknown>[] = [];
let feeds: Feeds;

const lastId = (): string => said.at(-1)!.id as string;
const snapshot = (): Snapshot => ({
  op: "snapshot", id: lastId(), seq: 10, epoch: "2a", revision: 1, step_ms: M,
  series: [{ labels: { country: "US" }, points: [[Date.now(), 1]] }],
});
const delta = (prev: number, seq: number): Delta => ({ op: "delta", id: lastId(), prev, seq, points: [[0, Date.now() + M, 2]] });

beforeEach(() => {
  vi.useFakeTimers();
  said = [];
  feeds = new Feeds({ up: true, send: (m: object) => said.push(m as Record<string, unknown>) } as unknown as Live);
});

test("a connection that comes back goes on where the last frame was", () => {
  const { feed } = feeds.open(spec, () => {});
  expect(said[0]).toMatchObject({ op: "subscribe", metric: "events", range: "1h", step: "1m", by: ["country"] });
  feeds.snapshot(snapshot());
  feeds.delta(delta(10, 12));
  feeds.reopen();
  expect(said.at(-1)).toMatchObject({ op: "resume", seq: 12, epoch: "2a", metric: "events", range: "1h", step: "1m", by: ["country"] });
  feeds.delta(delta(12, 15));
  expect(feed.book!.seq).toBe(15);
  expect(feed.book!.lines[0]!.points).toHaveLength(2);
});

test("the host may not know any more, and what does not fit is asked anew", () => {
  const { feed } = feeds.open(spec, () => {});
  feeds.reopen();
  expect(said.at(-1)!.op).toBe("subscribe");
  feeds.snapshot(snapshot());
  feeds.reopen();
  feeds.snapshot({ ...snapshot(), seq: 3, epoch: "2b" });
  expect([feed.book!.seq, feed.book!.epoch]).toEqual([3, "2b"]);
  feeds.delta(delta(2, 4));
  expect(said.at(-1)!.op).toBe("subscribe");
});

test("what had failed is not resumed", () => {
  feeds.open(spec, () => {});
  feeds.snapshot(snapshot());
  feeds.failed({ op: "error", id: lastId(), code: "metric_removed", message: "gone" });
  feeds.reopen();
  expect(said.at(-1)!.op).toBe("subscribe");
});
