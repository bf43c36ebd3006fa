/** Control, format and unassigned characters, line and paragraph separators. */
const UNPRINTABLE = /[\p{C}\p{Zl}\p{Zp}\\"]/gu;
const NOT_ASCII = /[^\x20-\x7e]|[\\"]/g;

/** Text of others for a terminal, with every character escaped that could control it, reorder it, or is not visible. */
export function printable(text: string): string {
  return text.toWellFormed().replace(UNPRINTABLE, escapeCharacter);
}

/**
 * The start of some bytes for a terminal: in quotes, at most `bytesMax` of them, and followed by their number if there are
 * more. Bytes that are not UTF-8 are shown as ASCII and `\xNN`.
 */
export function printableBytes(bytes: Buffer, bytesMax: number): string {
  const start = bytes.subarray(0, bytesMax);
  const isCut = bytes.length > bytesMax;
  let text: string;
  try {
    // A character that is cut in two at the end is left out.
    text = printable(
      new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(start, { stream: isCut }),
    );
  } catch {
    text = start.toString("latin1").replace(NOT_ASCII, escapeByte);
  }
  return isCut ? `"${text}"… (the first ${bytesMax} of ${bytes.length} bytes)` : `"${text}"`;
}

function escapeCharacter(character: string): string {
  return character === '"' || character === "\\"
    ? `\\${character}`
    : `\\u{${(character.codePointAt(0) ?? 0).toString(16)}}`;
}

function escapeByte(character: string): string {
  return character === '"' || character === "\\"
    ? `\\${character}`
    : `\\x${character.charCodeAt(0).toString(16).padStart(2, "0")}`;
}
