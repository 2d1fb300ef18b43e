// What a person does with charts: asks why a point is what it is, compares, shares out, saves, hangs them on a wall.
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { assert, WAIT_MS } from "./page.mjs";

const panel = (page) => page.p.locator(".explain");
const sentence = async (page) => (await panel(page).locator(".explain-body:not([aria-busy]) .sentence").textContent({ timeout: WAIT_MS })) ?? "";

/** Clicks into a chart, at parts of its width and height. */
async function clickAt(page, metric, x, y) {
  const over = page.p.locator(`#chart-${metric} .u-over`);
  await over.scrollIntoViewIfNeeded();
  const box = await over.boundingBox();
  await page.p.mouse.move(box.x + box.width * x, box.y + box.height * y);
  await page.p.mouse.click(box.x + box.width * x, box.y + box.height * y);
}

export const chartChecks = [
  [
    "a click on a point says why it is what it is, with what moved it and events",
    async ({ page }) => {
      // Late in the day, since its events are looked for in the newest part of the journal.
      await clickAt(page, "revenue", 0.95, 0.5);
      assert(/expected|mean/.test(await sentence(page)), await sentence(page));
      const text = await panel(page).textContent();
      for (const word of ["Revenue", "Expected", "Band", "zscore", "Corrected", "revision 1", "sum(props.amount)"]) assert(text.includes(word), `no ${word}: ${text}`);
      const shares = await panel(page).locator(".mover b").allTextContents();
      const numbers = shares.map((s) => Number(s.replace("−", "-").replace(/[^-\d]/g, "")));
      assert(numbers.length > 0 && numbers.every((n, i) => i === 0 || n <= numbers[i - 1]), `not the largest first: ${shares}`);
      const samples = panel(page).locator(".samples li");
      assert((await samples.count()) > 0 && (await samples.count()) <= 10, `${await samples.count()} events`);
      await samples.first().locator("summary").click();
      assert(JSON.parse(await samples.first().locator("pre").textContent()).type === "purchase", "an event that does not count");
      await samples.first().locator("summary").click();
      await panel(page).evaluate((el) => el.scrollTo(0, 0));
    },
    "explain",
  ],
  [
    "what moved it filters every chart",
    async ({ page }) => {
      await panel(page).locator(".mover").first().click();
      await page.wait("a filter in the link", () => page.search().includes("where."));
      await page.p.goBack();
      await page.wait("no filter", () => page.search() === "");
    },
  ],
  [
    "Escape closes it",
    async ({ page }) => {
      await page.p.keyboard.press("Escape");
      await panel(page).waitFor({ state: "hidden", timeout: WAIT_MS });
      await page.p.mouse.move(5, 5);
    },
  ],
  [
    "Enter asks about the point under the crosshair, of the line that was stepped to",
    async ({ page }) => {
      await page.p.locator(".split select").selectOption("country");
      await page.wait("several series", async () => (await page.legend("events")).length > 3);
      await page.p.locator("#chart-events .plot").focus();
      for (const key of ["ArrowLeft", "Shift+ArrowLeft", "ArrowUp", "ArrowUp"]) await page.p.keyboard.press(key);
      const who = await page.p.locator("#chart-events .readout .who").textContent({ timeout: WAIT_MS });
      await page.p.keyboard.press("Enter");
      await sentence(page);
      assert((await panel(page).locator(".who").textContent()) === who, `not of ${who}`);
      assert((await panel(page).textContent()).includes("none judges this series"), "a rule where there is none");
      await page.p.keyboard.press("Escape");
      await panel(page).waitFor({ state: "hidden", timeout: WAIT_MS });
      assert(await page.p.locator("#chart-events .plot").evaluate((el) => el === document.activeElement), "the focus is lost");
      await page.p.keyboard.press("Escape");
      await page.p.locator(".split select").selectOption("");
      await page.wait("one series again", async () => (await page.legend("events")).length === 0);
    },
  ],
  [
    "what the host cannot explain is said in its words",
    async ({ page }) => {
      const body = { error: { code: "invalid_time", message: "nothing is kept of that time", help: "Ask for a point that a query shows." } };
      await page.p.route("**/v1/explain?*", (route) => route.fulfill({ status: 400, json: body }));
      await clickAt(page, "events", 0.5, 0.5);
      await page.wait("the refusal", async () => (await sentence(page)).includes("could not be explained"));
      assert((await panel(page).textContent()).includes("nothing is kept of that time"), "no reason");
      await page.p.unroute("**/v1/explain?*");
      await page.p.keyboard.press("Escape");
      await page.p.mouse.move(5, 5);
      await page.p.evaluate(() => scrollTo(0, 0));
    },
  ],
  [
    "every chart is compared with yesterday, and the link says so",
    async ({ page }) => {
      await page.p.locator(".compare select").selectOption("day");
      await page.wait("the link", () => page.search() === "?compare=day");
      await page.wait("yesterday's line", async () => /before that maximum [^,]*\d/.test((await page.summary("events")) ?? ""));
      const box = await page.p.locator("#chart-events .u-over").boundingBox();
      await page.p.mouse.move(box.x + box.width / 2, box.y + box.height / 2);
      const against = await page.p.locator("#chart-events .against").textContent({ timeout: WAIT_MS });
      assert(/\d.* on yesterday/.test(against), against);
      await page.p.evaluate(() => scrollTo(0, 0));
    },
    "compare",
  ],
  [
    "of a time that nothing is known of it says that",
    async ({ page }) => {
      await page.p.locator(".compare select").selectOption("week");
      await page.wait("the note", async () => (await page.p.locator("#chart-events .note").textContent()) === "nothing of last week");
      await page.p.goBack();
      await page.p.goBack();
      await page.wait("no comparison", () => page.search() === "");
      await page.p.mouse.move(5, 5);
    },
  ],
  [
    "a chart is saved as CSV and as a picture",
    async ({ page }) => {
      await page.p.locator(".split select").selectOption("device");
      await page.wait("several series", async () => (await page.legend("events")).length > 1);
      const names = await page.legend("events");
      const text = (await saved(page, "events", "CSV", "csv")).toString();
      const lines = text.split("\r\n");
      assert(lines[0] === "time,device,value", lines[0]);
      assert(/^\d{4}-\d\d-\d\dT\d\d:\d\d:00\.000Z,[a-z]*,\d+$/.test(lines[1]), lines[1]);
      const devices = new Set(lines.slice(1, -1).map((l) => l.split(",")[1]));
      assert(devices.size === names.length, `${[...devices]} of ${names}`);
      const picture = await saved(page, "events", "PNG", "png");
      assert(picture.subarray(1, 4).toString() === "PNG" && picture.readUInt32BE(16) === 960, "no picture");
    },
  ],
  [
    "split counts and sums are shown as shares of their total, others are not",
    async ({ page }) => {
      await page.p.locator(".share-button").click();
      await page.wait("the link", () => page.search() === "?by=device&share=1");
      const unit = (metric) => page.p.locator(`#chart-${metric} .unit`).textContent();
      assert((await unit("events")) === "% of the total" && (await unit("active_users")) === "", "units");
      await page.wait("shares", async () => (await page.summary("events")).includes("%"));
      assert(!(await page.summary("active_users")).includes("%"), await page.summary("active_users"));
      const shares = await page.p.$$eval("#chart-events .legend .value", (all) => all.map((v) => Number.parseFloat(v.textContent) || 0));
      const sum = shares.reduce((a, b) => a + b, 0);
      assert(Math.abs(sum - 100) < 1, `together ${sum} %: ${shares}`);
      await page.p.evaluate(() => scrollTo(0, 0));
    },
    "share",
  ],
  [
    "and Back shows their values again",
    async ({ page }) => {
      await page.p.goBack();
      await page.p.goBack();
      await page.wait("one series again", async () => page.search() === "" && (await page.legend("events")).length === 0);
    },
  ],
];

/** What the browser saves of a chart. */
async function saved(page, metric, kind, ending) {
  const chart = page.p.locator(`#chart-${metric}`);
  await chart.scrollIntoViewIfNeeded();
  await chart.hover();
  await chart.locator(".download").click();
  const [download] = await Promise.all([page.p.waitForEvent("download", { timeout: WAIT_MS }), page.p.locator(".menu-item", { hasText: kind }).click()]);
  const name = download.suggestedFilename();
  assert(new RegExp(`^${metric}_\\d{4}-\\d\\d-\\d\\dT\\d{4}Z_\\d{4}-\\d\\d-\\d\\dT\\d{4}Z\\.${ending}$`).test(name), name);
  return readFile(await download.path());
}

let wall = null;

/** Before a host is killed. */
export const wallChecks = [
  [
    "on a wall everything is within the screen, dark, without controls",
    async ({ page, context, host }) => {
      wall = await context.newPage();
      await wall.goto(`${host.url}/?wall`);
      await wall.locator(".chart canvas").first().waitFor({ timeout: WAIT_MS });
      const seen = await wall.evaluate(() => ({
        theme: document.documentElement.dataset.theme,
        beyond: document.documentElement.scrollHeight - innerHeight,
        controls: [...document.querySelectorAll("button, select, input")].filter((b) => b.checkVisibility() && !b.matches(".card, .legend button")).map((b) => b.outerHTML),
        tiles: [...document.querySelectorAll(".chart")].filter((c) => c.checkVisibility()).length,
      }));
      assert(seen.theme === "dark" && seen.beyond <= 0 && seen.controls.length === 0, JSON.stringify(seen));
      const all = (await page.charts()).length;
      assert(seen.tiles > 0 && seen.tiles < all, `${seen.tiles} of ${all} at once`);
      const first = () => wall.$$eval(".chart", (all) => all.find((c) => c.checkVisibility())?.dataset.metric);
      const before = await first();
      await page.wait("others in turn", async () => (await first()) !== before);
      for (const [size, viewport] of [["phone", { width: 390, height: 844 }], ["wide", { width: 1600, height: 1000 }]]) {
        await wall.setViewportSize(viewport);
        await wall.evaluate(async () => {
          for (let i = 0; i < 4; i++) await new Promise(requestAnimationFrame);
        });
        await wall.screenshot({ path: join(page.out, `wall-${size}.png`) });
      }
    },
  ],
];

/** When the host is there again. */
export const wallAgainChecks = [
  [
    "so is the wall, and it says when the host started",
    async ({ page }) => {
      const state = () => wall.locator(".state-text").textContent();
      await page.wait("live", async () => (await state()) === "Live", 40_000);
      const number = wall.locator('.card[data-metric="events_rate"] .card-number');
      const before = await number.textContent();
      await page.wait("the number changes", async () => (await number.textContent()) !== before, 60_000);
      await wall.keyboard.press("Escape");
      await page.wait("the controls", () => wall.locator(".split select").isVisible());
      await wall.close();
      await page.wait("the mark of the start", async () => /; host started \S*\d\d:\d\d.*; host started/.test((await page.summary("events")) ?? ""));
    },
  ],
];
