/**
 * The template functions of a view. Lit implements them in the browser, and the server renders text. Event listeners
 * (`@click`) have an effect in the browser only.
 */
export interface Markup {
  readonly html: (strings: TemplateStringsArray, ...values: readonly unknown[]) => unknown;
  /** Renders a list. Items keep their elements when they move. */
  readonly each: <Item>(
    items: readonly Item[],
    key: (item: Item) => string,
    template: (item: Item) => unknown,
  ) => unknown;
  /** Renders nothing. */
  readonly nothing: unknown;
}
