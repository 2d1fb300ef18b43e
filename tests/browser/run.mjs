// Looks at the real page of a real host with a real browser: node run.mjs --binary PATH --out DIR
// Prints a line for each check and `N passed, N failed`; keeps screenshots and failures' pictures in DIR.
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { chromium } from "playwright-core";
import { checks, emptyChecks, keyChecks } from "./checks.mjs";
import { collectChecks, collectFlags, stopShops } from "./collect.mjs";
import { Host } from "./host.mjs";
import { Page } from "./page.mjs";
import { until } from "./until.mjs";

const { values: flags } = parseArgs({
  options: {
    binary: { type: "string" },
    out: { type: "string" },
    browser: { type: "string", default: "/usr/bin/chromium" },
    rate: { type: "string", default: "20" },
  },
});
if (!flags.binary || !flags.out) {
  console.error("usage: node run.mjs --binary PATH --out DIR [--browser PATH] [--rate EVENTS_PER_S]");
  process.exit(2);
}

const WIDE = { width: 1600, height: 1000 };
const FILLED_MS_MAX = 120_000;
const LAG_MS_MAX = 5_000;
const READ = { authorization: "Bearer read-me" };
const PHONE = { width: 390, height: 844 };
let passed = 0;
let failed = 0;

await mkdir(flags.out, { recursive: true });
const browser = await chromium.launch({
  executablePath: flags.browser,
  args: ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"],
});

/** The page as it is now, on a large and a small screen, light and dark. */
async function shoot(page, name) {
  for (const [size, viewport] of [["wide", WIDE], ["phone", PHONE]]) {
    await page.p.setViewportSize(viewport);
    for (const colorScheme of ["light", "dark"]) {
      await page.p.emulateMedia({ colorScheme });
      // A few frames: laid out, drawing asked for, drawn.
      await page.p.evaluate(async () => {
        scrollTo(0, 0);
        for (let i = 0; i < 4; i++) await new Promise(requestAnimationFrame);
      });
      await page.p.screenshot({ path: join(flags.out, `${name}-${size}-${colorScheme}.png`) });
    }
    if (size === "phone") {
      const width = await page.p.evaluate(() => document.documentElement.scrollWidth);
      if (width > PHONE.width) throw new Error(`${width} px wide on a phone of ${PHONE.width}`);
    }
  }
  await page.p.emulateMedia({ colorScheme: "light" });
  await page.p.setViewportSize(WIDE);
}

async function run(list, hostFlags) {
  const host = await Host.create(flags.binary, hostFlags);
  const context = await browser.newContext({ viewport: WIDE, colorScheme: "light", timezoneId: "Europe/Berlin" });
  try {
    await host.start();
    await until("the past is filled in", FILLED_MS_MAX, async () => (await host.get("/v1/status", READ)).lag_ms < LAG_MS_MAX);
    const page = new Page(await context.newPage(), host, flags.out);
    for (const [name, check, picture] of list) {
      const begun = performance.now();
      try {
        await check({ page, host, context });
        if (picture) await shoot(page, picture);
        passed++;
        console.log(`ok      ${name} (${((performance.now() - begun) / 1000).toFixed(1)} s)`);
      } catch (e) {
        failed++;
        console.log(`FAILED  ${name}: ${e.message.split("\n").join("\n        ")}`);
        await page.p.screenshot({ path: join(flags.out, `failed-${failed}.png`) }).catch(() => {});
      }
    }
  } catch (e) {
    failed++;
    console.log(`FAILED  the host: ${e.message}`);
  } finally {
    await context.close();
    await host.remove();
  }
}

await run(checks, ["--demo", flags.rate]);
await run(emptyChecks, []);
await run(keyChecks, ["--read-key", "read-me", "--write-key", "write-me"]);
await run(collectChecks, collectFlags);
stopShops();
await browser.close();
console.log(`${passed} passed, ${failed} failed`);
process.exit(failed ? 1 : 0);
