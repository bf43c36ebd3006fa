import { mkdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { startAppProcess } from "../test/support/app.ts";
import { cacheDir } from "../test/support/programs.ts";
import { chromiumNeed, startBrowser, untilStatus, visit } from "../test/web/browser.ts";
import { shopAt } from "../test/web/shop.ts";
import { PAGE_STATES, type PageState } from "../test/web/states.ts";

// npm run shots: a screenshot of every state of the page, wide and narrow, light and dark.

const WIDTHS = { wide: { width: 1280, height: 900 }, narrow: { width: 360, height: 800 } } as const;
const THEMES = ["light", "dark"] as const;
/** First, before other states add products. In the demo only, which the tests of the other states have switched off. */
const HELD: PageState = {
  name: "held",
  address: "/",
  show: async (page) => {
    await untilStatus(page, "Live");
    await page.getByRole("button", { name: "Reserve 1 Camping Stove" }).click();
    await page.getByRole("button", { name: "Buy Camping Stove" }).waitFor();
    await page.locator("h1").scrollIntoViewIfNeeded();
  },
};
const folder = join(cacheDir(), "shots");

if (chromiumNeed.missing) throw new Error(chromiumNeed.missing);
await rm(folder, { recursive: true, force: true });
await mkdir(folder, { recursive: true });
await using app = await startAppProcess({ DEMO: "on" });
const shop = shopAt(app.url);
const browser = await startBrowser();
let screenshots = 0;

for (const { name, address, prepare, show } of [HELD, ...PAGE_STATES]) {
  for (const [widthName, viewport] of Object.entries(WIDTHS)) {
    await using visitor = await visit(browser, { viewport });
    const page = await visitor.context.newPage();
    await prepare?.(page);
    await page.goto(`${app.url}${address}`);
    await show(page, shop);
    for (const colorScheme of THEMES) {
      await page.emulateMedia({ colorScheme });
      await page.screenshot({ path: join(folder, `${name}-${widthName}-${colorScheme}.png`) });
      screenshots += 1;
    }
  }
}
for (const [widthName, viewport] of Object.entries(WIDTHS)) {
  await using reader = await visit(browser, { viewport, javaScriptEnabled: false });
  const plain = await reader.open(app.url);
  await plain.screenshot({ path: join(folder, `no-script-${widthName}-light.png`) });
  await using visitor = await visit(browser, { viewport });
  const storefront = await visitor.open(`${app.url}/embed-demo.html`);
  await storefront.locator("stock-count:state(live)").first().waitFor();
  await storefront.screenshot({ path: join(folder, `storefront-${widthName}-light.png`), fullPage: true });
  screenshots += 2;
}
await browser.close();
shop.close();
process.stdout.write(`${screenshots} screenshots in ${folder}\n`);
