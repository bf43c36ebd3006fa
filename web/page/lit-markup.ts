import { repeat } from "lit/directives/repeat.js";
import { html, nothing } from "lit/html.js";
import type { Markup } from "../view/markup.ts";

/** Renders the views with Lit. */
export const litMarkup: Markup = {
  html: (strings, ...values) => html(strings, ...values),
  each: (items, key, template) => repeat(items, key, template),
  nothing,
};
