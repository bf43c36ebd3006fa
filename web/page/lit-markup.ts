import { repeat } from "lit/directives/repeat.js";
import { html, nothing } from "lit/html.js";
import type { Markup } from "../view/markup.ts";

/** The views rendered into the document, in place. */
export const litMarkup: Markup = {
  html: (strings, ...values) => html(strings, ...values),
  each: (items, key, template) => repeat(items, key, template),
  nothing,
};
