// What a person does with one chart: asks why a point is what it is.
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
      assert((await sentence(page)).includes("could not be explained"), await sentence(page));
      assert((await panel(page).textContent()).includes("nothing is kept of that time"), "no reason");
      await page.p.unroute("**/v1/explain?*");
      await page.p.keyboard.press("Escape");
      await page.p.mouse.move(5, 5);
      await page.p.evaluate(() => scrollTo(0, 0));
    },
  ],
];
