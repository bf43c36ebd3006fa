/** Names in one order for all: by code point after folding case and accents away, then as they are. */
export function compareNames(a: string, b: string): number {
  return compareText(foldText(a), foldText(b)) || compareText(a, b);
}

/** For searching and sorting: lower case, without accents. */
export function foldText(text: string): string {
  return text.normalize("NFKD").replace(/\p{M}/gu, "").toLowerCase();
}

function compareText(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

/** By byte, 0 to 255: the same, in lower case where it is ASCII. */
export const LOWER_CASE: Uint8Array = Uint8Array.from({ length: 256 }, (_, byte) =>
  byte >= 0x41 && byte <= 0x5a ? byte + 0x20 : byte,
);

/** A piece of UTF-8. */
export interface Bytes {
  readonly bytes: Uint8Array;
  readonly start: number;
  readonly end: number;
}

/** The order of code points. */
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

/** The order of code points with the case of ASCII letters aside: of folded texts, and of ASCII as if it were folded. */
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
