// Text that comes from sellers or from the server may hold control characters, which would act on the terminal.

const CONTROL = /\p{Cc}/gu;
/** Characters that reorder the text around them: embeddings, overrides and isolates of the bidirectional algorithm. */
const BIDI_CONTROL = /[\u202A-\u202E\u2066-\u2069]/gu;
const WIDE =
  /^(?:\p{Emoji_Presentation}|[\u1100-\u115F\u2E80-\u303E\u3041-\uA4CF\uAC00-\uD7A3\uF900-\uFAFF\uFE30-\uFE6F\uFF00-\uFF60\uFFE0-\uFFE6]|[\u{20000}-\u{3FFFD}])/u;
const graphemes = new Intl.Segmenter("en", { granularity: "grapheme" });

/** The text in one line, with control characters escaped as in JSON: `\n`, `\u001b`. */
export function printable(text: string): string {
  return text
    .replace(CONTROL, (character) => {
      const escaped = JSON.stringify(character).slice(1, -1);
      return escaped === character
        ? `\\u00${character.charCodeAt(0).toString(16).padStart(2, "0")}`
        : escaped;
    })
    .replace(BIDI_CONTROL, (character) => `\\u${character.charCodeAt(0).toString(16)}`);
}

/** Columns of a terminal that the text takes. East Asian wide characters and emoji take two (Unicode Annex 11). */
export function displayWidth(text: string): number {
  if (/^[\x20-\x7e]*$/.test(text)) return text.length;
  let width = 0;
  for (const { segment } of graphemes.segment(text)) width += WIDE.test(segment) ? 2 : 1;
  return width;
}

/** The text, cut to `max` columns with `…` at its end. */
export function truncate(text: string, max: number): string {
  if (displayWidth(text) <= max) return text;
  let [cut, width] = ["", 0];
  for (const { segment } of graphemes.segment(text)) {
    width += displayWidth(segment);
    if (width > max - 1) break;
    cut += segment;
  }
  return `${cut}…`;
}

/** `1 row`, `2 rows`, `50,000 rows`. */
export function plural(count: number, noun: string, pluralNoun = `${noun}s`): string {
  return `${count.toLocaleString("en-US")} ${count === 1 ? noun : pluralNoun}`;
}
