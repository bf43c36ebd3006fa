import type { Page } from "playwright";
import { untilCount, untilStatus } from "./browser.ts";
import type { Shop } from "./shop.ts";

/** A state of the page, and how to produce it. Used for screenshots and for accessibility tests. */
export interface PageState {
  readonly name: string;
  readonly address: string;
  /** Runs before the page is opened. */
  readonly prepare?: (page: Page) => Promise<void>;
  /** Resolves when the page shows the state. */
  readonly show: (page: Page, shop: Shop) => Promise<void>;
}

const WATCH = "**/WatchStock";
const POLLS = "**/BatchGetStock?*";
const LISTS = "**/ListStock?*";

const refuse = (page: Page, address: string): Promise<unknown> =>
  page.route(address, (route) => route.abort("connectionrefused"));

export const PAGE_STATES: readonly PageState[] = [
  { name: "live", address: "/", show: (page) => untilStatus(page, "Live") },
  {
    name: "out-of-order",
    address: "/?sort=-changed",
    show: async (page, shop) => {
      await untilStatus(page, "Live");
      const last = page.locator(".card").last();
      await shop.adjust((await last.getAttribute("data-product-id")) ?? "", 1);
      await page.getByRole("button", { name: /changed: sort again/ }).waitFor();
    },
  },
  {
    name: "filtered",
    address: "/?stock=in",
    show: async (page) => {
      await untilStatus(page, "Live");
      const filters = page.locator("summary");
      if (await filters.isVisible()) await filters.click();
    },
  },
  {
    name: "back-in-stock",
    address: "/",
    show: async (page, shop) => {
      await untilStatus(page, "Live");
      // A new ID each time: a deleted product returns with its ledger.
      const productId = `hat-${crypto.randomUUID()}`;
      await shop.put({ productId, name: "Alpine Hat", declared: 0, price: 38, collectionId: "spring" });
      await page.reload();
      await untilStatus(page, "Live");
      await shop.adjust(productId, 12);
      await untilCount(page, productId, "12 left");
      await page.locator(`[data-product-id="${productId}"] .card-note`).waitFor();
    },
  },
  {
    name: "paused",
    address: "/",
    show: async (page) => {
      await untilStatus(page, "Live");
      await page.getByRole("button", { name: "Pause live updates" }).click();
      await untilStatus(page, "Paused");
    },
  },
  {
    name: "reconnecting",
    address: "/",
    prepare: async (page) => {
      await refuse(page, WATCH);
      await refuse(page, POLLS);
    },
    show: (page) => untilStatus(page, "Reconnecting"),
  },
  {
    name: "polling",
    address: "/",
    prepare: async (page) => void (await refuse(page, WATCH)),
    show: (page) => untilStatus(page, "Polling"),
  },
  {
    name: "offline",
    address: "/",
    show: async (page) => {
      await untilStatus(page, "Live");
      await page.context().setOffline(true);
      await untilStatus(page, "Offline");
    },
  },
  {
    name: "stale",
    address: "/",
    prepare: async (page) => {
      await refuse(page, WATCH);
      await page.route(POLLS, async (route) => {
        const response = await route.fetch();
        await route.fulfill({ response, headers: { ...response.headers(), "stock-stale": "true" } });
      });
    },
    show: (page) => untilStatus(page, "Last known counts"),
  },
  {
    name: "empty",
    address: "/?q=unobtainable",
    show: (page) => page.locator('[data-message="empty"]').waitFor(),
  },
  {
    name: "loading",
    address: "/?q=unobtainable",
    prepare: async (page) => void (await page.route(LISTS, () => undefined)),
    show: async (page) => {
      await page.locator('[data-message="empty"]').waitFor();
      await page.getByLabel("Search").fill("mug");
      await page.locator(".skeleton").first().waitFor();
    },
  },
  {
    name: "failed",
    address: "/",
    prepare: async (page) => void (await refuse(page, LISTS)),
    show: async (page) => {
      await untilStatus(page, "Live");
      await page.getByLabel("Search").fill("mug");
      await page.locator('[data-message="failed"]').waitFor();
    },
  },
];
