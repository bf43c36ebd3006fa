/** The order of names, independent of locale: by code point without case and accents, then by the exact text. */
export function compareNames(a: string, b: string): number {
  return compareText(foldText(a), foldText(b)) || compareText(a, b);
}

/** Folds a text for searching and sorting: lower case, without accents. */
export function foldText(text: string): string {
  return text.normalize("NFKD").replace(/\p{M}/gu, "").toLowerCase();
}

function compareText(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

/** Maps each byte, 0 to 255: ASCII letters to lower case, all others to themselves. */
export const LOWER_CASE: Uint8Array = Uint8Array.from({ length: 256 }, (_, byte) =>
  byte >= 0x41 && byte <= 0x5a ? byte + 0x20 : byte,
);

/** A range of UTF-8 bytes. */
export interface Bytes {
  readonly bytes: Uint8Array;
  readonly start: number;
  readonly end: number;
}

/** Compares by code point. */
export function compareBytes(a: Bytes, b: Bytes): number {
  const length = Math.min(a.end - a.start, b.end - b.start);
  for (let i = 0; i < length; i++) {
    const difference = (a.bytes[a.start + i] as number) - (b.bytes[b.start + i] as number);
    if (difference !== 0) {
      return difference;
    }
  }
  return a.end - a.start - (b.end - b.start);
}

/** Compares by code point, ignoring the case of ASCII letters: for folded texts, and for ASCII as if it were folded. */
export function compareFolded(a: Bytes, b: Bytes): number {
  const length = Math.min(a.end - a.start, b.end - b.start);
  for (let i = 0; i < length; i++) {
    const left = LOWER_CASE[a.bytes[a.start + i] as number] as number;
    const right = LOWER_CASE[b.bytes[b.start + i] as number] as number;
    if (left !== right) {
      return left - right;
    }
  }
  return a.end - a.start - (b.end - b.start);
}

export function bytesOf(text: string): Bytes {
  const bytes = Buffer.from(text);
  return { bytes, start: 0, end: bytes.length };
}
