import type { Markup } from "../../web/view/markup.ts";

/** Text that is already HTML. Every other template value is escaped. */
class Html {
  readonly text: string;

  constructor(text: string) {
    this.text = text;
  }
}

const NOTHING = Symbol("nothing");
/** An attribute that Lit would bind: `@` a listener, `.` a property, `?` present or not. */
const BOUND_ATTRIBUTE = /\s([@.?])([\w-]+)=$/;

/**
 * Renders the page's views to text, in place of Lit. Event listeners and properties are omitted, and every
 * value is escaped.
 */
export const textMarkup: Markup = {
  html: (strings, ...values) => new Html(interpolate(strings, values)),
  each: (items, _key, template) => items.map(template),
  nothing: NOTHING,
};

/** The HTML of a view. */
export function htmlOf(view: unknown): string {
  return render(view);
}

/** Escapes text for element content and for quoted attribute values. */
export function escapeHtml(text: string): string {
  return text.replace(/[&<>"'`]/g, (character) => `&#${character.charCodeAt(0)};`);
}

function interpolate(strings: TemplateStringsArray, values: readonly unknown[]): string {
  let text = "";
  strings.forEach((string, index) => {
    text += string;
    if (index >= values.length) {
      return;
    }
    const bound = BOUND_ATTRIBUTE.exec(string);
    if (bound === null) {
      text += render(values[index]);
      return;
    }
    text = text.slice(0, -bound[0].length);
    if (bound[1] === "?" && values[index]) {
      text += ` ${bound[2]}`;
    }
  });
  return text;
}

function render(value: unknown): string {
  if (value instanceof Html) {
    return value.text;
  }
  if (Array.isArray(value)) {
    return value.map(render).join("");
  }
  return value === NOTHING || value === undefined || value === null ? "" : escapeHtml(String(value));
}
