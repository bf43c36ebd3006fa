import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { after, before, describe, it } from "node:test";
import type { AxeResults, RunOptions } from "axe-core";
import type { Browser, Page, Route } from "playwright";
import { type AppProcess, startAppProcess } from "../support/app.ts";
import { chromiumNeed, startBrowser, untilCount, untilStatus, visit } from "./browser.ts";
import { type Shop, SMALL_SHOP, shopAt } from "./shop.ts";
import { PAGE_STATES } from "./states.ts";

const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
/** The rules about colours. The themes differ in colours only, so the second one is checked against these. */
const COLOUR_RULES = ["color-contrast", "link-in-text-block"];
const LAYOUT_SHIFT_MAX = 0.02;
const TARGET_PX_MIN = 44;
const NARROW_PX = 320;

declare global {
  var axe: { run(options: RunOptions): Promise<AxeResults> };
  var shifts: number;
}

describe("the page: accessibility", { skip: chromiumNeed.missing, concurrency: 2 }, () => {
  let app: AppProcess;
  let shop: Shop;
  let browser: Browser;

  before(async () => {
    [app, browser] = await Promise.all([startAppProcess(), startBrowser()]);
    shop = shopAt(app.url);
    await shop.put(...SMALL_SHOP);
  });
  after(async () => {
    shop?.close();
    await browser?.close();
    await app?.stop();
  });

  for (const { name, address, prepare, show } of PAGE_STATES) {
    it(`has no violation that axe finds: ${name}`, async () => {
      await using visitor = await visit(browser);
      const page = await visitor.context.newPage();
      await prepare?.(page);
      await page.goto(`${app.url}${address}`);
      await show(page, shop);
      assert.deepEqual(await violationsInBothThemes(page), []);
      await page.setViewportSize({ width: NARROW_PX, height: 640 });
      assert.equal(await page.evaluate(() => document.documentElement.scrollWidth), NARROW_PX);
      assert.deepEqual(visitor.errors, []);
    });
  }

  it("has no violation that axe finds: the demo storefront", async () => {
    await using visitor = await visit(browser);
    const page = await visitor.open(`${app.url}/embed-demo.html`);
    assert.deepEqual(await violationsInBothThemes(page), []);
  });

  it("fits into 320 px, with targets of at least 44 px", async () => {
    await using visitor = await visit(browser, { viewport: { width: NARROW_PX, height: 640 } });
    const page = await visitor.open(app.url);
    await untilStatus(page, "Live");
    await page.getByText("Filters").click();
    await page.getByLabel("In stock only").waitFor();
    assert.equal(await page.evaluate(() => document.documentElement.scrollWidth), NARROW_PX);
    const small = await page
      .locator("button, a.solid, summary, input:not([type=checkbox]), select, .check")
      .evaluateAll(
        (targets, least) =>
          targets
            .filter((target) => target.checkVisibility())
            .map((target) => ({
              text: target.textContent?.trim(),
              ...target.getBoundingClientRect().toJSON(),
            }))
            .filter(({ height, width }) => height < least || width < least),
        TARGET_PX_MIN,
      );
    assert.deepEqual(small, []);
  });

  it("causes no layout shift when the script starts or when counts change", async () => {
    await using visitor = await visit(browser);
    await visitor.context.addInitScript(() => {
      globalThis.shifts = 0;
      new PerformanceObserver((list) => {
        for (const entry of list.getEntries()) {
          globalThis.shifts += (entry as PerformanceEntry & { value: number }).value;
        }
      }).observe({ type: "layout-shift", buffered: true });
    });
    // Among the first products, and used by no other test.
    await shop.put(
      { productId: "awl", name: "Awl", declared: 104 },
      { productId: "axe", name: "Axe", declared: 4 },
    );
    const page = await visitor.open(app.url);
    await untilStatus(page, "Live");
    await shop.reserve("awl", 5);
    await untilCount(page, "awl", "99 left");
    await shop.reserve("axe", 4);
    await untilCount(page, "axe", "Sold out");
    await shop.adjust("axe", 1_000);
    await untilCount(page, "axe", "1,000 left");
    await page.getByRole("button", { name: "Pause live updates" }).click();
    await untilStatus(page, "Paused");
    const shifts = await page.evaluate(() => globalThis.shifts);
    assert.ok(shifts <= LAYOUT_SHIFT_MAX, `the layout shifted by ${shifts}`);
  });

  it("paints the list before its script is loaded", async (t) => {
    await using visitor = await visit(browser);
    const page = await visitor.context.newPage();
    const held: Route[] = [];
    await page.route("**/assets/*.js", (route) => void held.push(route));
    await page.goto(app.url, { waitUntil: "commit" });
    await page.locator(".card-name", { hasText: "Enamel Mug" }).waitFor();
    const paintMs = await page.evaluate(
      () =>
        new Promise<number>((resolve) =>
          new PerformanceObserver((list) => resolve(list.getEntries().at(-1)?.startTime ?? 0)).observe({
            type: "largest-contentful-paint",
            buffered: true,
          }),
        ),
    );
    assert.equal(held.length, 1, "the script is requested and does not block rendering");
    t.diagnostic(`the largest contentful paint was at ${Math.round(paintMs)} ms; the target is 1,500`);
    await held[0]?.continue();
    await untilStatus(page, "Live");
  });

  it("announces changes of the level only, politely, at most once in five seconds", async () => {
    await using visitor = await visit(browser);
    await shop.put(
      { productId: "ink", name: "Ink", declared: 16, collectionId: "announced" },
      { productId: "nib", name: "Nib", declared: 8, collectionId: "announced" },
    );
    const page = await visitor.open(`${app.url}/?collection=announced`);
    await untilStatus(page, "Live");
    assert.equal(await page.locator("[aria-live]").count(), 1);
    await page.evaluate(() => {
      const region = document.querySelector("#announcements");
      const announced: { text: string; atMs: number }[] = [];
      Object.assign(globalThis, { announced });
      if (region === null) return;
      new MutationObserver(() =>
        announced.push({ text: region.textContent, atMs: performance.now() }),
      ).observe(region, { childList: true, characterData: true, subtree: true });
    });
    await shop.reserve("ink", 1);
    await untilCount(page, "ink", "15 left");
    await shop.reserve("ink", 12);
    await untilCount(page, "ink", "Only 3 left");
    await shop.reserve("nib", 8);
    await untilCount(page, "nib", "Sold out");
    const region = page.locator("#announcements");
    await region.filter({ hasText: "Nib: Sold out" }).waitFor();
    const announced = await page.evaluate(
      () => (globalThis as unknown as { announced: { text: string; atMs: number }[] }).announced,
    );
    assert.deepEqual(
      announced.map(({ text }) => text),
      ["Ink: Only 3 left.", "Nib: Sold out."],
    );
    const [first, second] = announced;
    assert.ok(first && second && second.atMs - first.atMs >= 4_990, JSON.stringify(announced));
  });
});

async function violationsInBothThemes(page: Page): Promise<string[]> {
  await page.evaluate(AXE);
  const found: string[] = [];
  for (const colorScheme of ["light", "dark"] as const) {
    await page.emulateMedia({ colorScheme, reducedMotion: "reduce" });
    const options: RunOptions = colorScheme === "light" ? {} : { runOnly: COLOUR_RULES };
    const { violations } = await page.evaluate(
      (wanted) => globalThis.axe.run({ ...wanted, resultTypes: ["violations"] }),
      options,
    );
    found.push(
      ...violations.map(
        ({ id, nodes }) =>
          `${colorScheme}: ${id}: ${nodes.map(({ html }) => html.slice(0, 120)).join(" | ")}`,
      ),
    );
  }
  return found;
}
