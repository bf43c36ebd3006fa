import type { Markup } from "./markup.ts";
import type { PageSettings } from "./settings.ts";

/** The content of the page at an address that does not exist. */
export function notFoundView({ html }: Markup, { shopName }: PageSettings): unknown {
  return html`<header class="masthead">
      <h1 dir="auto">${shopName ?? "Live stock"}</h1>
    </header>
    <main class="message" data-message="not-found">
      <h2>There is no page at this address</h2>
      <p>The link may be old, or the address mistyped. Every product is on the first page.</p>
      <search>
        <form class="find" method="get" action="/" autocomplete="off">
          <label class="field"><span>Search</span><input type="search" name="q" maxlength="100" placeholder="Name or product ID" /></label>
          <button type="submit" class="solid">Search</button>
        </form>
      </search>
      <p><a href="/">All products</a></p>
    </main>`;
}
