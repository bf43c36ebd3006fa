/**
 * What a view is written with, so that one template serves twice: Lit renders it in the browser, and the
 * server renders it to text. Event listeners (`@click`) are for the browser alone.
 */
export interface Markup {
  readonly html: (strings: TemplateStringsArray, ...values: readonly unknown[]) => unknown;
  /** Renders a list whose items keep their elements while they move. */
  readonly each: <Item>(
    items: readonly Item[],
    key: (item: Item) => string,
    template: (item: Item) => unknown,
  ) => unknown;
  /** Renders as nothing at all. */
  readonly nothing: unknown;
}
