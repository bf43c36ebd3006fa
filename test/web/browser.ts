import {
  type Browser,
  type BrowserContext,
  type BrowserContextOptions,
  chromium,
  type Page,
} from "playwright";
import { need } from "../support/programs.ts";

/** A Chromium for the tests of the page, or the reason why there is none. */
export const chromiumNeed = need("chromium");

const FLAGS = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

/** How long a test waits for the page. The page's own delays take up to 10 s, and the machine may be busy. */
export const SHOWN_MS_MAX = 30_000;

export function startBrowser(): Promise<Browser> {
  return chromium.launch({ executablePath: chromiumNeed.path, args: FLAGS });
}

/** An isolated browser context that collects the errors of its pages. */
export interface Visitor extends AsyncDisposable {
  readonly context: BrowserContext;
  /** Uncaught errors, and violations of the Content Security Policy. */
  readonly errors: string[];
  readonly open: (url: string) => Promise<Page>;
}

export async function visit(browser: Browser, options: BrowserContextOptions = {}): Promise<Visitor> {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, ...options });
  context.setDefaultTimeout(SHOWN_MS_MAX);
  const errors: string[] = [];
  context.on("weberror", (error) => errors.push(error.error().message));
  context.on("console", (message) => {
    if (message.type() === "error" && /Content Security Policy|TrustedHTML/.test(message.text())) {
      errors.push(message.text());
    }
  });
  return {
    context,
    errors,
    open: async (url) => {
      const page = await context.newPage();
      await page.goto(url);
      return page;
    },
    [Symbol.asyncDispose]: () => context.close(),
  };
}

/** Waits until the status has this text. */
export async function untilStatus(page: Page, word: string, timeoutMs = SHOWN_MS_MAX): Promise<void> {
  await page.locator(".status-word", { hasText: new RegExp(`^${word}$`) }).waitFor({ timeout: timeoutMs });
}

/** Waits until a product's count has this text. */
export async function untilCount(
  page: Page,
  productId: string,
  text: string,
  timeoutMs = SHOWN_MS_MAX,
): Promise<void> {
  await page
    .locator(`[data-product-id="${productId}"] .count-text`, {
      hasText: new RegExp(`^${escapeRegExp(text)}$`),
    })
    .waitFor({ timeout: timeoutMs });
}

/** The current text of an element. */
export async function textOf(page: Page, selector: string): Promise<string> {
  return ((await page.locator(selector).textContent()) ?? "").trim();
}

/** The names of the products shown, in order. */
export function namesOf(page: Page): Promise<string[]> {
  return page.locator(".card-name").allTextContents();
}

function escapeRegExp(text: string): string {
  return text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
}
