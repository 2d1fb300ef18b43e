// The script for other people's pages, on a site of another origin. Checks are as in checks.mjs and build on each other.
import { assert } from "./page.mjs";
import { Shop } from "./shop.mjs";
import { until } from "./until.mjs";

const WAIT_MS = 20_000;
const READ = { authorization: "Bearer read-me" };
const COUNTS = `[metrics]\nviews = "count() where type = 'page_view'"\nclicks = "sum(props.n) where type = 'click'"\n`;

const listed = await Shop.start();
const unlisted = await Shop.start();

export const collectFlags = ["--allow-origin", listed.origin, "--write-key", "write-me", "--read-key", "read-me"];

export function stopShops() {
  for (const shop of [listed, unlisted]) shop.stop();
}

async function total(host, metric) {
  const { series } = await host.get(`/v1/query?metric=${metric}&from=-1h&to=${Date.now() + 600_000}`, READ);
  return series.flatMap((s) => s.points).reduce((sum, [, value]) => sum + value, 0);
}

/** Waits until so much is counted, and sees to it that it is no more. */
async function counted(host, views, clicks) {
  let seen;
  await until(`${views} views and ${clicks} clicks`, WAIT_MS, async () => {
    seen = [await total(host, "views"), await total(host, "clicks")];
    return seen[0] >= views && seen[1] >= clicks;
  }).catch((e) => {
    throw new Error(`${e.message}; there are ${seen}`);
  });
  assert(seen.join() === [views, clicks].join(), `${seen} instead of ${[views, clicks]}`);
}

const click = (p, n = 1) => p.evaluate((n) => window.tidemark.track("click", { n }), n);
const waiting = (p) => p.evaluate(() => JSON.parse(localStorage.getItem("tidemark.waiting") ?? "[]").length);

export const collectChecks = [
  [
    "the script is small, kept by browsers, and may be read by listed sites",
    async ({ host }) => {
      for (const shop of [listed, unlisted]) shop.script = `<script defer src="${host.url}/tidemark.js" data-key="write-me"></script>`;
      const script = await fetch(`${host.url}/tidemark.js`, { headers: { origin: listed.origin } });
      const bytes = (await script.arrayBuffer()).byteLength;
      assert(script.ok && bytes > 0 && bytes < 4096, `${script.status}, ${bytes} bytes`);
      const header = (name) => script.headers.get(name);
      assert(/max-age=[1-9]/.test(header("cache-control")) && /javascript/.test(header("content-type")), "headers");
      assert(header("access-control-allow-origin") === listed.origin, "no access for the listed site");
      const again = await fetch(`${host.url}/tidemark.js`, { headers: { "if-none-match": header("etag") } });
      assert(again.status === 304, `${again.status}`);
      await host.edit((text) => text.replace(/\[metrics\].*\n/, COUNTS));
      await until("the counts", WAIT_MS, async () => (await host.get("/v1/metrics", READ)).metrics.some((m) => m.name === "clicks"));
    },
  ],
  [
    "a page view and an event are counted",
    async ({ page, host }) => {
      await page.p.goto(listed.origin);
      await click(page.p);
      await counted(host, 1, 1);
    },
  ],
  [
    "so are views that the page makes itself, and going back",
    async ({ page, host }) => {
      await page.p.evaluate(() => history.pushState(null, "", "/books?page=2"));
      await page.p.evaluate(() => history.pushState(null, "", "#here"));
      await page.p.evaluate(() => history.replaceState(null, "", "#there"));
      await counted(host, 2, 1);
      await page.p.evaluate(() => history.go(-2));
      await counted(host, 3, 1);
      const urls = (await host.get("/v1/query?metric=top_pages&from=-1h", READ)).series[0].points.at(-1)[1];
      assert(JSON.stringify(urls) === JSON.stringify([[`${listed.origin}/`, 2], [`${listed.origin}/books?page=2`, 1]]), JSON.stringify(urls));
    },
  ],
  [
    "an event in the moment of leaving is counted",
    async ({ page, host }) => {
      await page.p.evaluate(() => {
        window.tidemark.track("click", { n: 1 });
        location.href = "/other";
      });
      await page.p.waitForURL("**/other");
      await counted(host, 4, 2);
    },
  ],
  [
    "what happens offline is kept, and counted when the network is back",
    async ({ page, host, context }) => {
      await context.setOffline(true);
      for (const n of [1, 2, 4]) await click(page.p, n);
      await until("it is kept", WAIT_MS, async () => (await waiting(page.p)) === 3);
      await context.setOffline(false);
      await counted(host, 4, 9);
      await until("nothing is kept", WAIT_MS, async () => (await waiting(page.p)) === 0);
    },
  ],
  [
    "it outlives the page",
    async ({ page, host, context }) => {
      const other = await context.newPage();
      await other.goto(listed.origin);
      await counted(host, 5, 9);
      await context.setOffline(true);
      await click(other, 10);
      await other.close({ runBeforeUnload: true });
      await until("it is kept", WAIT_MS, async () => (await waiting(page.p)) === 1);
      await context.setOffline(false);
      await page.p.goto(`${listed.origin}/again`);
      await counted(host, 6, 19);
    },
  ],
  [
    "a lost answer and one that says 503 are tried again, and count once",
    async ({ page, host }) => {
      const before = (await host.get("/v1/status", READ)).duplicates_total;
      let requests = 0;
      await page.p.route("**/v1/events*", async (route) => {
        requests++;
        if (requests > 2) return route.continue();
        const response = await route.fetch();
        return requests === 1 ? route.abort() : route.fulfill({ response, status: 503 });
      });
      await click(page.p, 100);
      await counted(host, 6, 119);
      await until("all three were sent", WAIT_MS, () => requests === 3);
      await until("two were duplicates", WAIT_MS, async () => (await host.get("/v1/status", READ)).duplicates_total === before + 2);
      await page.p.unroute("**/v1/events*");
      await counted(host, 6, 119);
    },
  ],
  [
    "without localStorage it works all the same",
    async ({ page, host, context }) => {
      const other = await context.newPage();
      const errors = [];
      other.on("pageerror", (e) => errors.push(String(e)));
      await other.addInitScript(() => {
        Object.defineProperty(window, "localStorage", {
          get() {
            throw new DOMException("blocked", "SecurityError");
          },
        });
      });
      await other.goto(listed.origin);
      await click(other, 1000);
      await counted(host, 7, 1119);
      await other.close();
      assert(errors.concat(page.errors).length === 0, errors.concat(page.errors).join("\n"));
    },
  ],
  [
    "a site that is not listed is not let in, and suffers nothing",
    async ({ page, host }) => {
      await page.p.goto(unlisted.origin);
      await click(page.p, 10_000);
      // Kept is what was sent and refused.
      await until("it is kept", WAIT_MS, async () => (await waiting(page.p)) === 2);
      await counted(host, 7, 1119);
      assert(page.errors.length === 0, page.errors.join("\n"));
    },
  ],
];
