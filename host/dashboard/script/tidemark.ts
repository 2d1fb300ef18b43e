// The script for other people's pages, served as /tidemark.js: page views and events, in batches, kept until the host has them.
// Knows nothing of metrics. Must work where storage is blocked, where the network is not there, and where it stands last in
// somebody's page: it never throws, and nothing it keeps grows without bound. Small before all: its build fails at 4 KB.

/** When it happened, and the event as JSON without that. */
type Entry = [at: number, json: string];

const BATCH_MS = 50;
const RETRY_MS = 1_000;
const RETRY_MS_MAX = 60_000;
/** A body: a beacon may be 64 KiB. */
const BODY_CHARS_MAX = 20_000;
/** Of all that waits; beyond it the oldest are given up. */
const WAITING_CHARS_MAX = 200_000;
/** An event that is sent at once has the time at which it arrives: many devices' clocks are wrong. */
const AT_ONCE_MS = 10_000;
const WAITING = "tidemark.waiting";
const PERSON = "tidemark.person";

const element = document.currentScript as HTMLScriptElement;
const source = new URL(element.src);
const url = new URL("v1/events", source);
const key = element.dataset.key ?? source.searchParams.get("key");
if (key) url.searchParams.set("key", key);

function stored(name: string, value?: string | null): string | null {
  try {
    if (value === null) localStorage.removeItem(name);
    else if (value !== undefined) localStorage.setItem(name, value);
    else return localStorage.getItem(name);
  } catch {
    // Blocked or full: what is here is all there is.
  }
  return null;
}

function randomId(): string {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

let person = element.dataset.user ?? stored(PERSON);
if (!person) stored(PERSON, (person = randomId()));
let waiting: Entry[] = [];
let timer: ReturnType<typeof setTimeout> | undefined;
let sending = false;
let failures = 0;

function holds(list: Entry[], json: string): boolean {
  return list.some((entry) => entry[1] === json);
}

/** Beyond the limit the oldest go. */
function bounded(list: Entry[]): Entry[] {
  let chars = 0;
  const from = list.findLastIndex(([, json]) => (chars += json.length) > WAITING_CHARS_MAX);
  return list.slice(from + 1);
}

/** What pages of this site could not send yet, in all its windows. */
function kept(): Entry[] {
  try {
    const all = JSON.parse(stored(WAITING) ?? "[]") as Entry[];
    return all.filter(([at, json]) => at > 0 && json[0] === "{");
  } catch {
    return []; // Not ours.
  }
}

function keep(list: Entry[]): void {
  stored(WAITING, list[0] ? JSON.stringify(bounded(list)) : null);
}

function keepWaiting(): void {
  keep(kept().filter(([, json]) => !holds(waiting, json)).concat(waiting));
}

/** The oldest that fit into a body. */
function next(): Entry[] {
  let chars = 0;
  const end = waiting.findIndex(([, json]) => (chars += json.length) > BODY_CHARS_MAX);
  return waiting.slice(0, end < 0 ? undefined : Math.max(end, 1));
}

/** As plain text, which a browser sends to another site without asking there first. */
function body(batch: Entry[]): string {
  const now = Date.now();
  return batch.map(([at, json]) => (now - at < AT_ONCE_MS ? json : `{"ts":${at},${json.slice(1)}`)).join("\n");
}

function drop(batch: Entry[]): void {
  const left = ([, json]: Entry) => !holds(batch, json);
  waiting = waiting.filter(left);
  keep(kept().filter(left));
}

function later(ms = failures ? Math.min(RETRY_MS * 2 ** failures, RETRY_MS_MAX) : BATCH_MS): void {
  clearTimeout(timer);
  timer = setTimeout(send, ms);
}

function send(): void {
  timer = undefined;
  const batch = next();
  if (sending || !batch[0]) return;
  sending = true;
  fetch(url, { method: "POST", body: body(batch), credentials: "omit" })
    .then(({ status }) => {
      // What is refused for good is refused again; all else is worth another try.
      if (status > 499 || status === 408 || status === 429) throw status;
      if (status > 399) console.warn(`tidemark: refused with ${status}`);
      failures = 0;
      drop(batch);
    })
    .catch(() => {
      failures++;
      keepWaiting();
    })
    .finally(() => {
      sending = false;
      if (waiting[0] && !timer) later();
    });
}

/** The page is about to go, perhaps for good. What is on its way is sent again: its ids are the same. */
function leave(): void {
  // A beacon is not answered: it is for a host that was there a moment ago.
  while (waiting[0] && navigator.onLine && !failures) {
    const batch = next();
    if (!navigator.sendBeacon(url, body(batch))) break;
    drop(batch);
  }
  keepWaiting();
}

function track(type: string, props?: object, from = document.referrer): void {
  try {
    const { href } = location;
    const event = { type, id: randomId(), user_id: person, url: href, referrer: from, locale: navigator.language, props };
    waiting = bounded([...waiting, [Date.now(), JSON.stringify(event)]]);
    if (!timer) later();
  } catch (error) {
    console.warn("tidemark:", error);
  }
}

let shown = "";
function page(): void {
  const here = location.href.split("#")[0]!;
  if (here === shown) return;
  track("page_view", undefined, shown || document.referrer);
  shown = here;
}

const { pushState } = history;
history.pushState = function (...given) {
  pushState.apply(this, given);
  page();
};
addEventListener("popstate", page);
addEventListener("pageshow", (event) => {
  // Back, to a page that the browser had kept as it was: seen again.
  if (!event.persisted) return;
  shown = "";
  page();
});
addEventListener("pagehide", leave);
addEventListener("visibilitychange", () => document.visibilityState === "hidden" && leave());
addEventListener("online", () => later(0));

waiting = kept();
page();

export {};
declare global {
  interface Window {
    tidemark: { track(name: string, props?: object): void; identify(user: string): void };
  }
}
window.tidemark = {
  track: (name, props) => track(name, props),
  identify: (user) => stored(PERSON, (person = String(user))),
};
