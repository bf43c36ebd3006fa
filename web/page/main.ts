import "../styles/page.css";
import { type PageQuery, pageAddress, parsePageQuery } from "../view/list-query.ts";
import type { PageStart } from "../view/product.ts";
import { LIST_STEP, PAGE_SETTINGS_DEFAULT, type PageSettings } from "../view/settings.ts";
import type {} from "./holds.ts";
import { Lists } from "./lists.ts";
import { LivePage } from "./live-page.ts";
import { SharedWatch } from "./shared-watch.ts";
import { StockClient } from "./stock-client.ts";

/** Delay between the last keystroke and the search. */
const TYPING_DEBOUNCE_MS = 250;

const root = document.querySelector<HTMLElement>("#page");
const region = document.querySelector<HTMLElement>("#announcements");
if (root && region) start(root, region);

function start(root: HTMLElement, region: HTMLElement): void {
  const settings: PageSettings = {
    ...PAGE_SETTINGS_DEFAULT,
    ...readJson<PageSettings>(root.dataset["settings"]),
  };
  const initial: PageStart = {
    products: [],
    total: 0,
    collections: [],
    serverTimeMs: 0,
    isLoaded: true,
    isStale: false,
    ...readJson<PageStart>(root.dataset["start"]),
  };
  const client = new StockClient(location.origin);
  let typing: ReturnType<typeof setTimeout> | undefined;
  let watch: SharedWatch;
  const page = new LivePage({
    holdView: globalThis.demoHolds?.view,
    root,
    region,
    settings,
    start: initial,
    query: parsePageQuery(new URLSearchParams(location.search)),
    actions: {
      onTyped: ({ target }) => {
        clearTimeout(typing);
        const form = formOf(target);
        if (form) typing = setTimeout(() => navigate(readForm(form), "replace"), TYPING_DEBOUNCE_MS);
      },
      onChosen: (event) => {
        if (event.type === "submit") event.preventDefault();
        clearTimeout(typing);
        const form = formOf(event.target);
        if (form) navigate(readForm(form), "push");
      },
      onPause: () => {
        page.setPaused(!page.isPaused);
        subscribe();
      },
      onSortAgain: () => {
        void lists.load(page.query);
        root.querySelector<HTMLElement>("main")?.focus({ preventScroll: true });
      },
      onRetry: () => void lists.load(page.query),
      onLink: (event) => {
        const { currentTarget } = event;
        if (
          !(currentTarget instanceof HTMLAnchorElement) ||
          (event as MouseEvent).metaKey ||
          (event as MouseEvent).ctrlKey
        )
          return;
        event.preventDefault();
        const query = parsePageQuery(new URL(currentTarget.href).searchParams);
        const isLonger = query.shown > page.query.shown;
        navigate(query, isLonger ? "replace" : "push", isLonger);
        if (!isLonger) syncForm();
        root.querySelector<HTMLElement>("main")?.focus({ preventScroll: true });
      },
    },
  });
  const lists = new Lists({ client, page: () => page, onLoaded: subscribe });

  function subscribe(): void {
    watch.subscribe(page.isPaused ? [] : page.list.productIds);
  }

  function openWatch(): SharedWatch {
    return new SharedWatch({
      client,
      heartbeatMs: settings.heartbeatMs,
      onUpdate: (message) => {
        if (!page.isPaused) page.apply(message);
      },
      onState: (state) => {
        page.setConnection(state);
        if (state === "live" || state === "polling") void lists.retry();
      },
    });
  }

  function navigate(query: PageQuery, how: "push" | "replace", isLonger = false): void {
    const address = pageAddress(query);
    if (address === pageAddress(page.query) && page.loading === "idle") return;
    if (how === "push") history.pushState(null, "", address);
    else history.replaceState(null, "", address);
    void lists.load(query, isLonger);
  }

  /** Sets the fields of the form to the query in the address. */
  function syncForm(): void {
    queueMicrotask(() => root.querySelector("form")?.reset());
  }

  watch = openWatch();
  subscribe();
  globalThis.demoHolds?.start({
    onChange: () => page.draw(),
    announce: (productId, text) => page.announceHold(productId, text),
  });
  if (initial.isLoaded) lists.reloadWhileEmpty();
  else void lists.load(page.query);

  addEventListener("popstate", () => {
    void lists.load(parsePageQuery(new URLSearchParams(location.search)));
    syncForm();
  });
  addEventListener("online", () => watch.retryNow());
  addEventListener("offline", () => watch.onOffline());
  document.addEventListener("visibilitychange", () => watch.retryNow());
  // A page in the back/forward cache must hold neither the lock nor a connection.
  addEventListener("pagehide", () => watch.close());
  addEventListener("pageshow", ({ persisted }) => {
    if (persisted) {
      // No message arrived while the page was in the cache.
      page.setConnection("reconnecting");
      watch = openWatch();
      subscribe();
    } else watch.retryNow();
  });
}

function formOf(target: EventTarget | null): HTMLFormElement | null {
  return target instanceof Element ? target.closest("form") : null;
}

function readForm(form: HTMLFormElement): PageQuery {
  const parameters = new URLSearchParams();
  for (const [name, value] of new FormData(form)) if (typeof value === "string") parameters.set(name, value);
  return { ...parsePageQuery(parameters), shown: LIST_STEP };
}

function readJson<T>(text: string | undefined): Partial<T> {
  return text === undefined ? {} : (JSON.parse(text) as Partial<T>);
}
