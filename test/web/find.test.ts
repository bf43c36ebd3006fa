import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import type { Browser, Page } from "playwright";
import { type AppProcess, startAppProcess } from "../support/app.ts";
import { until } from "../support/until.ts";
import { chromiumNeed, namesOf, startBrowser, textOf, untilStatus, visit } from "./browser.ts";
import { type Shop, SMALL_SHOP, shopAt } from "./shop.ts";

const EVIL = `<img src=x onerror="document.title='broken'">"'&`;
/** More than the first list shows. */
const MANY = Array.from({ length: 60 }, (_, index) => ({
  productId: `spoon-${String(index).padStart(2, "0")}`,
  name: `Spoon ${String(index).padStart(2, "0")}`,
  declared: 30,
  price: 3,
  collectionId: "spoons",
}));

describe("finding a product", { skip: chromiumNeed.missing, concurrency: false }, () => {
  let app: AppProcess;
  let shop: Shop;
  let browser: Browser;

  before(async () => {
    [app, browser] = await Promise.all([startAppProcess(), startBrowser()]);
    shop = shopAt(app.url);
    await shop.put(...SMALL_SHOP, ...MANY, { productId: "evil", name: EVIL, description: EVIL, declared: 6 });
  });
  after(async () => {
    shop?.close();
    await browser?.close();
    await app?.stop();
  });

  it("searches while typing, and updates the address", async () => {
    await using visitor = await visit(browser);
    const page = await visitor.open(app.url);
    await page.getByLabel("Search").pressSequentially("enamel");
    // On a slow machine, the first letters may be searched too, with the same result.
    await until(() => new URL(page.url()).search === "?q=enamel", "the whole word is in the address");
    await untilNames(page, ["Enamel Mug"]);
    await page.reload();
    await untilNames(page, ["Enamel Mug"]);
    assert.equal(await page.getByLabel("Search").inputValue(), "enamel");
  });

  it("filters and sorts, and follows the browser's back button", async () => {
    await using visitor = await visit(browser);
    const page = await visitor.open(app.url);
    await page.getByLabel("Collection").selectOption("desk");
    await untilNames(page, ["Desk Lamp", "Fountain Pen", "Wool Felt Mat"]);
    await page.getByLabel("In stock only").check();
    await untilNames(page, ["Desk Lamp", "Fountain Pen"]);
    await page.getByLabel("Sort by").selectOption({ label: "Price, low to high" });
    await untilNames(page, ["Fountain Pen", "Desk Lamp"]);
    await page.getByLabel("Price to").fill("50");
    await untilNames(page, ["Fountain Pen"]);
    const { searchParams } = new URL(page.url());
    assert.deepEqual(Object.fromEntries(searchParams), {
      collection: "desk",
      max: "50",
      stock: "in",
      sort: "price",
    });
    await page.getByLabel("Price to").fill("");
    await untilNames(page, ["Fountain Pen", "Desk Lamp"]);
    await page.goBack();
    await until(() => !page.url().includes("sort="), "the address is the one before");
    await untilNames(page, ["Desk Lamp", "Fountain Pen"]);
    assert.equal(await page.getByLabel("Sort by").inputValue(), "name");
  });

  it("shows the same list to another visitor of the link", async () => {
    await using visitor = await visit(browser);
    const page = await visitor.open(`${app.url}/?collection=kitchen&sort=-price&min=20`);
    assert.deepEqual(await namesOf(page), ["Carbon Steel Pan", "Stoneware Bowl"]);
    assert.equal(await page.getByLabel("Price from").inputValue(), "20");
    assert.equal(await page.getByLabel("Collection").inputValue(), "kitchen");
  });

  it("extends the list in place, also from a link", async () => {
    await using visitor = await visit(browser);
    const page = await visitor.open(`${app.url}/?collection=spoons`);
    await untilStatus(page, "Live");
    assert.equal(await page.locator(".card").count(), 48);
    assert.equal(await textOf(page, ".result-count"), "48 of 60 products");
    await page.getByRole("link", { name: "Show 12 more" }).click();
    await until(async () => (await page.locator(".card").count()) === 60, "all are shown");
    assert.match(page.url(), /shown=96/);
    await shop.reserve("spoon-59", 1);
    await page.locator('[data-product-id="spoon-59"] .count-text', { hasText: "29 left" }).waitFor();
  });

  it("shows that nothing matches, with a link to all products", async () => {
    await using visitor = await visit(browser);
    const page = await visitor.open(`${app.url}/?q=unobtainable`);
    await page.getByRole("heading", { name: "No products match" }).waitFor();
    await page.getByRole("link", { name: "Show all products" }).click();
    await until(async () => (await page.locator(".card").count()) === 48, "all products are shown");
    assert.equal(await page.getByLabel("Search").inputValue(), "");
  });

  it("escapes sellers' texts", async () => {
    await using visitor = await visit(browser);
    const page = await visitor.open(`${app.url}/?q=evil`);
    await untilStatus(page, "Live");
    assert.deepEqual(await namesOf(page), [EVIL]);
    assert.equal(await page.title(), "Live stock");
    await using reader = await visit(browser, { javaScriptEnabled: false });
    const plain = await reader.open(`${app.url}/?q=evil`);
    assert.deepEqual(await namesOf(plain), [EVIL]);
    await page.goto(`${app.url}/?q=${encodeURIComponent(EVIL)}`);
    assert.equal(await page.getByLabel("Search").inputValue(), EVIL);
    assert.deepEqual(visitor.errors, []);
  });

  it("lists, searches and sorts without a script", async () => {
    await using visitor = await visit(browser, { javaScriptEnabled: false });
    const page = await visitor.open(app.url);
    assert.equal(await page.locator(".card").count(), 48);
    assert.match(await textOf(page, ".status-text"), /Counts\s+as of \d\d:\d\d:\d\d UTC/);
    await page.getByLabel("Search").fill("desk lamp");
    await page.getByLabel("Sort by").selectOption("-price");
    await page.getByRole("button", { name: "Show" }).click();
    assert.deepEqual(await namesOf(page), ["Desk Lamp"]);
    assert.equal(await page.locator(".pause").isVisible(), false);
  });

  it("says that the lowest price is above the highest one, and recovers", async () => {
    await using visitor = await visit(browser);
    const lists: string[] = [];
    visitor.context.on("request", (request) => {
      if (request.url().includes("/ListStock?")) lists.push(request.url());
    });
    const page = await visitor.open(`${app.url}/?collection=desk&min=50&max=20`);
    const problem = page.getByRole("alert").filter({ hasText: "“Price from” is above “Price to”" });
    await problem.waitFor();
    await page.getByText("No price is both at least €50.00 and at most €20.00.").waitFor();
    assert.equal(await page.getByLabel("Price from").getAttribute("aria-invalid"), "true");
    await page.getByLabel("Price from").fill("40");
    await page.getByText("No price is both at least €40.00 and at most €20.00.").waitFor();
    assert.deepEqual(lists, [], "a list that the server refuses is not requested");
    await page.getByLabel("Price to").fill("200");
    await untilNames(page, ["Desk Lamp", "Fountain Pen"]);
    assert.equal(await problem.count(), 0);
    assert.equal(await page.getByLabel("Price from").getAttribute("aria-invalid"), "false");
  });

  it("offers the collections of all products by their IDs where sellers have named none", async () => {
    await using visitor = await visit(browser);
    const page = await visitor.open(`${app.url}/?collection=spoons`);
    const options = await page.getByLabel("Collection").locator("option").allTextContents();
    assert.deepEqual(options, ["All", "desk", "kitchen", "spoons"]);
  });

  it("writes prices and times as the visitor does, with the script and without", async () => {
    for (const javaScriptEnabled of [true, false]) {
      await using visitor = await visit(browser, { locale: "de-DE", javaScriptEnabled });
      const page = await visitor.open(`${app.url}/?q=lamp`);
      assert.equal(await textOf(page, ".card-price"), "110,00\u00a0€");
      await page.emulateMedia({ media: "print" });
      assert.match(
        await textOf(page, ".print-time"),
        /^Counts as of \d{1,2}\. \p{L}+ 20\d\d um \d\d:\d\d:\d\d/u,
      );
      assert.ok(await page.locator(".print-time").isVisible());
      assert.equal(await page.locator("search").isVisible(), false);
      assert.equal(await page.locator(".status").isVisible(), false);
    }
  });

  it("collapses the filters on a narrow screen, and shows how many are set", async () => {
    await using visitor = await visit(browser, { viewport: { width: 360, height: 800 } });
    const page = await visitor.open(`${app.url}/?collection=desk`);
    await untilStatus(page, "Live");
    const filters = page.locator("summary");
    assert.equal(await filters.textContent(), "Filters: 1");
    assert.equal(await page.getByLabel("In stock only").isVisible(), false);
    await filters.press("Enter");
    await page.getByLabel("In stock only").check();
    await untilNames(page, ["Desk Lamp", "Fountain Pen"]);
    assert.equal(await filters.textContent(), "Filters: 2");
    assert.equal(await page.getByLabel("In stock only").isVisible(), true);
  });

  it("can be used with the keyboard only", async () => {
    await using visitor = await visit(browser);
    const page = await visitor.open(`${app.url}/?collection=spoons`);
    await untilStatus(page, "Live");
    const focused = () =>
      page.evaluate(() => {
        const { activeElement } = document;
        const outline = activeElement ? getComputedStyle(activeElement).outlineStyle : "none";
        const label = activeElement?.closest("label")?.querySelector("span")?.textContent;
        return `${label ?? activeElement?.textContent?.trim()}: ${outline}`;
      });
    const stops: string[] = [];
    for (let stop = 0; stop < 9; stop++) {
      await page.keyboard.press("Tab");
      stops.push(await focused());
    }
    assert.deepEqual(stops, [
      "Skip to products: solid",
      "Pause live updates: solid",
      "Search: solid",
      "Collection: solid",
      "Price from: solid",
      "Price to: solid",
      "In stock only: solid",
      "Sort by: solid",
      "Show 12 more: solid",
    ]);
    await page.keyboard.press("Enter");
    await until(async () => (await page.locator(".card").count()) === 60, "all are shown");
  });
});

async function untilNames(page: Page, names: readonly string[]): Promise<void> {
  await until(
    async () => JSON.stringify(await namesOf(page)) === JSON.stringify(names),
    `the products shown are ${names.join(", ")}`,
  );
}
