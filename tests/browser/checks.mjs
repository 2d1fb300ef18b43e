// What a person would try, in the order they would. Each check is [name, what it does]; they share one page.
import { chartChecks, wallAgainChecks, wallChecks } from "./charts.mjs";
import { assert, WAIT_MS } from "./page.mjs";

const BREAK = (text) => text.replace("[metrics]", "[metrics]\nbroken = \"count() whre type = 'purchase'\"\n# ");
const MEND = (text) => text.replace(/\nbroken = .*\n# /, "");
const ADD_BACKWARDS = (text) => text.replace(/\[metrics\].*\n/, (line) => `${line}visits = { value = "uniq(user_id)", backfill = true }\n`);
const visits = async (host) => (await host.get("/v1/metrics")).metrics.find((m) => m.name === "visits");
const ADD = (text) => text.replace(/\[metrics\].*\n/, (line) => `${line}purchases = "count() where type = 'purchase'"\n`);

export const checks = [
  [
    "the page loads with a chart for every metric",
    async ({ page, host }) => {
      await page.open();
      const { metrics } = await host.get("/v1/metrics");
      const shown = await page.charts();
      assert(metrics.length > 0 && metrics.every((m) => shown.includes(m.name)), `charts: ${shown}`);
      const plots = await page.plots();
      for (const m of metrics.filter((m) => plots.includes(m.name))) {
        await page.wait(`${m.name} has a value`, async () => /last [^,]*\d/.test((await page.summary(m.name)) ?? ""));
      }
      await page.p.evaluate(() => scrollTo(0, 0));
    },
  ],
  [
    "a funnel has bars with conversion, a top list its values, percentiles one chart",
    async ({ page }) => {
      const steps = await page.wait("the funnel", async () => ((await page.rows("checkout")).length === 3 ? page.rows("checkout") : null));
      assert(steps[0][0] === "page view" && /\d/.test(steps[0][2]) && /%/.test(steps[1][3]) && /%/.test(steps[2][4]), JSON.stringify(steps));
      const width = (row) => page.p.locator("#chart-checkout .share span").nth(row).evaluate((el) => el.getBoundingClientRect().width);
      assert((await width(0)) > (await width(1)) && (await width(1)) > (await width(2)), "bars do not shrink");
      const pages = await page.wait("the top list", async () => ((await page.rows("top_pages")).length === 10 ? page.rows("top_pages") : null));
      assert(pages[0][0].startsWith("https://shop.example/"), JSON.stringify(pages[0]));
      const lines = await page.wait("the percentiles", async () => ((await page.legend("latency_p50")).length === 2 ? page.legend("latency_p50") : null));
      assert(lines.join() === "p50,p95" && !(await page.plots()).includes("latency_p95"), `${lines}`);
    },
  ],
  [
    "headline cards show numbers, change and spark line",
    async ({ page, host }) => {
      const { headline } = await host.get("/v1/metrics");
      for (const name of headline) {
        const card = page.card(name);
        await page.wait(`the card of ${name}`, async () => /\d/.test(await card.locator(".card-number").textContent()));
        assert(((await card.locator(".spark-line").getAttribute("d")) ?? "").length > 50, `no spark line: ${name}`);
      }
      await page.wait("a change on yesterday", async () => /[+−]?\d.*yesterday/.test(await page.p.locator(".headline").textContent()));
      const estimate = await page.card("active_users").locator(".card-number").textContent();
      assert(estimate.startsWith("~"), `an estimate without its tilde: ${estimate}`);
    },
    "data",
  ],
  [
    "numbers are live",
    async ({ page }) => {
      assert((await page.state()) === "Live", await page.state());
      const number = page.card("events_rate").locator(".card-number");
      const before = await number.textContent();
      await page.wait("the number changes", async () => (await number.textContent()) !== before, 60_000);
    },
  ],
  [
    "pointing at one chart reads all of them at that time",
    async ({ page }) => {
      const box = await page.p.locator("#chart-active_users .u-over").boundingBox();
      await page.p.mouse.move(box.x + box.width / 2, box.y + box.height / 2);
      const read = () => page.p.$$eval("#chart-active_users .when, #chart-events_rate .when", (all) => all.map((w) => w.textContent));
      const times = await page.wait("two readouts", async () => ((await read()).length === 2 ? read() : null));
      assert(times[0] === times[1], `times differ: ${times}`);
      await page.p.mouse.move(5, 5);
      await page.wait("the readouts go", async () => (await read()).length === 0);
    },
  ],
  [
    "arrow keys move the crosshair of the chart in focus",
    async ({ page }) => {
      await page.p.locator("#chart-events_rate .plot").focus();
      const when = page.p.locator("#chart-events_rate .when");
      await page.p.keyboard.press("ArrowLeft");
      const first = await when.textContent({ timeout: WAIT_MS });
      await page.p.keyboard.press("Shift+ArrowLeft");
      await page.wait("it moves", async () => (await when.textContent()) !== first);
      await page.p.keyboard.press("Escape");
      await page.wait("it goes", async () => (await when.count()) === 0);
    },
  ],
  [
    "a filter changes every chart and the link",
    async ({ page }) => {
      const before = await page.summaries();
      const value = await page.filterFirst("device");
      assert(page.search().includes(`where.device=${encodeURIComponent(value)}`), page.search());
      for (const [name, words] of Object.entries(before)) {
        await page.wait(`${name} is filtered`, async () => (await page.summary(name)) !== words);
      }
      assert((await page.p.locator(".chip").textContent()).startsWith(`device: ${value}`), "no chip");
    },
  ],
  [
    "a link shows the same view",
    async ({ page, context }) => {
      const words = async (p) => p.locator(".chips").textContent();
      const other = await context.newPage();
      await other.goto(page.p.url());
      await page.wait("the other page's chips", async () => (await words(other)) === (await words(page.p)));
      await other.close();
    },
  ],
  [
    "Back takes the filter away",
    async ({ page }) => {
      await page.p.goBack();
      await page.wait("no filter", async () => page.search() === "" && (await page.p.locator(".chip").count()) === 0);
    },
  ],
  [
    "a split shows the largest series",
    async ({ page }) => {
      await page.p.locator(".split select").selectOption("country");
      await page.wait("several series", async () => (await page.legend("events")).length > 3);
      assert(page.search() === "?by=country", page.search());
      const shown = await page.legend("events");
      assert(shown.length <= 8, `more than eight series: ${shown}`);
    },
    "split",
  ],
  [
    "a click in the legend isolates one",
    async ({ page }) => {
      const first = page.p.locator("#chart-events .legend button").first();
      await first.click();
      await page.wait("one is pressed", async () => (await first.getAttribute("aria-pressed")) === "true");
      await page.wait("one line", async () => !(await page.summary("events")).includes(". "));
      await first.click();
      await page.p.locator(".split select").selectOption("");
      await page.wait("one series again", async () => (await page.legend("events")).length === 0);
    },
  ],
  [
    "drag zooms every chart, double click goes back",
    async ({ page }) => {
      await page.p.evaluate(() => scrollTo(0, 0));
      const box = await page.p.locator("#chart-active_users .u-over").boundingBox();
      const y = box.y + box.height / 2;
      await page.p.mouse.move(box.x + box.width * 0.3, y);
      await page.p.mouse.down();
      await page.p.mouse.move(box.x + box.width * 0.5, y, { steps: 4 });
      await page.p.mouse.up();
      await page.wait("a chosen time in the link", () => page.search().includes("from="));
      await page.p.mouse.dblclick(box.x + box.width * 0.6, y);
      await page.wait("the range again", () => !page.search().includes("from="));
      await page.p.mouse.move(5, 5);
    },
  ],
  ...chartChecks,
  [
    "a metric added to metrics.toml appears without a refresh",
    async ({ page, host }) => {
      await page.p.evaluate(() => (window.sameVisit = true));
      await host.edit(ADD);
      await page.wait("its chart", async () => (await page.charts()).includes("purchases"));
      await page.wait("its numbers", async () => /last [^,]*\d/.test((await page.summary("purchases")) ?? ""), 90_000);
      await page.wait("a mark on the time axis", async () => (await page.summary("events")).includes("; definitions r2: +purchases"));
      assert(await page.p.evaluate(() => window.sameVisit === true), "the page was loaded again");
    },
  ],
  [
    "a metric that is to be filled backwards says how far back it is complete",
    async ({ page, host }) => {
      await host.edit(ADD_BACKWARDS);
      await page.wait("the mark", async () => /complete (back to|from) \S*\d\d:\d\d/.test((await page.summary("visits")) ?? ""));
      assert((await visits(host)).complete_from > 0, JSON.stringify(await visits(host)));
    },
    "filling",
  ],
  [
    "the mark goes when nothing is missing",
    async ({ page, host }) => {
      await page.wait("the mark to go", async () => !(await page.summary("visits")).includes("complete"), 120_000);
      assert((await visits(host)).complete_from === 0, JSON.stringify(await visits(host)));
      const { series } = await host.get("/v1/query?metric=visits&from=-24h");
      assert(series[0].points.length > 1_400, `${series[0].points.length} points in 24 h`);
    },
  ],
  [
    "a rejected file shows its caret message, everything runs on",
    async ({ page, host }) => {
      await host.edit(BREAK);
      const banner = page.p.locator(".banner");
      await banner.waitFor({ timeout: WAIT_MS });
      const text = await banner.textContent();
      assert(text.includes("metrics.toml") && text.includes("^") && text.includes("whre"), text);
      assert((await page.state()) === "Live" && (await page.charts()).includes("purchases"), "the page suffered");
    },
    "rejected",
  ],
  [
    "the banner is there after a refresh too, and goes when the file is mended",
    async ({ page, host }) => {
      await page.open();
      await page.p.locator(".banner").waitFor({ timeout: WAIT_MS });
      await host.edit(MEND);
      await page.p.locator(".banner").waitFor({ state: "detached", timeout: WAIT_MS });
    },
  ],
  [
    "an incident is shown as an anomaly: ring, card, list",
    async ({ page, host }) => {
      const at = Date.now();
      const sale = (i) => ({ type: "purchase", user_id: `whale-${i}`, id: `incident-${at}-${i}`, ts: at, props: { amount: 50_000, category: "toys" } });
      await host.post(Array.from({ length: 200 }, (_, i) => sale(i)));
      await page.wait("the card's edge", async () => (await page.card("revenue").getAttribute("class")).includes("odd"), 60_000);
      assert(/since \d\d:\d\d/.test(await page.card("revenue").textContent()), "the card does not say since when");
      assert(/[1-9]\d* anomal/.test(await page.summary("revenue")), await page.summary("revenue"));
      // The made-up shop turns over less than a tenth of what was just sold: this is that incident, not one of its own.
      await page.p.locator(".episode.going", { hasText: /Revenue.*\$\d{2}(\.\d)?M/ }).first().waitFor({ timeout: WAIT_MS });
      await page.p.evaluate(() => scrollTo(0, 0));
    },
    "anomaly",
  ],
  [
    "choosing an anomaly zooms every chart to it",
    async ({ page }) => {
      await page.p.locator(".episode.going", { hasText: "Revenue" }).first().click();
      await page.wait("a chosen time", () => page.search().includes("from="));
      await page.p.goBack();
      await page.wait("the range again", () => !page.search().includes("from="));
      await page.p.evaluate(() => scrollTo(0, 0));
    },
  ],
  [
    "the drawer tells of definitions, plugins and rejected events",
    async ({ page, host }) => {
      await fetch(`${host.url}/v1/events`, { method: "POST", headers: { "content-type": "application/json" }, body: '{"user_id":"nobody"}' });
      await page.p.locator(".bar-end .definitions").click();
      const drawer = page.p.locator(".drawer");
      await page.wait("its text", async () => {
        const text = await drawer.textContent();
        return /Revision \d/.test(text) && text.includes("geo_ip") && text.includes("user_agent") && text.includes("nobody");
      });
    },
    "drawer",
  ],
  [
    "Escape closes it; ? lists the keys",
    async ({ page }) => {
      await page.p.keyboard.press("Escape");
      await page.p.locator(".drawer").waitFor({ state: "hidden", timeout: WAIT_MS });
      await page.p.locator("body").press("?");
      await page.p.locator(".dialog .keys").waitFor({ timeout: WAIT_MS });
      await page.p.keyboard.press("Escape");
    },
  ],
  ...wallChecks,
  [
    "a killed host is told, and the page stays",
    async ({ page, host }) => {
      await host.kill();
      await page.wait("the state", async () => /^Disconnected since \d\d:\d\d:\d\d$/.test(await page.state()));
      assert((await page.p.locator(".heard").textContent()).startsWith("last update"), "no last update");
      assert(/\d/.test(await page.card("active_users").locator(".card-number").textContent()), "the numbers went");
    },
    "disconnected",
  ],
  [
    "it comes back by itself and is live again",
    async ({ page, host }) => {
      await host.start();
      await page.wait("live", async () => (await page.state()) === "Live", 40_000);
      const number = page.card("events_rate").locator(".card-number");
      const before = await number.textContent();
      await page.wait("the number changes", async () => (await number.textContent()) !== before, 60_000);
    },
  ],
  ...wallAgainChecks,
  [
    "no script failed, nothing was asked of another host",
    async ({ page }) => {
      assert(page.errors.length === 0, page.errors.join("\n"));
      assert(page.foreign.length === 0, page.foreign.join("\n"));
    },
  ],
];

/** On a host without an event. */
export const emptyChecks = [
  [
    "without an event the page says how to send one",
    async ({ page }) => {
      await page.p.goto(page.host.url);
      await page.p.locator(".empty").waitFor({ timeout: WAIT_MS });
      assert((await page.p.locator(".empty pre").textContent()).includes(`curl ${page.host.url}/v1/events`), "another address");
    },
    "empty",
  ],
  [
    "what it says works, and the page comes alive by itself",
    async ({ page }) => {
      const line = await page.p.locator(".empty pre").textContent();
      await page.host.post(JSON.parse(/-d '(.*)'/.exec(line)[1]));
      await page.p.locator(".empty").waitFor({ state: "detached", timeout: 40_000 });
      await page.drawn();
    },
  ],
];

/** On a host with keys. */
export const keyChecks = [
  [
    "a host with keys asks once, then shows",
    async ({ page }) => {
      await page.p.goto(page.host.url);
      await page.p.locator("dialog input").fill("read-me");
      await page.p.keyboard.press("Enter");
      await page.wait("the state", async () => (await page.state()) === "Live");
      await page.p.reload();
      await page.wait("the state after a reload", async () => (await page.state()) === "Live");
      assert((await page.p.locator("dialog[open]").count()) === 0, "asked again");
    },
  ],
];
