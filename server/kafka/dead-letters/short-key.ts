/** The part of a message's key that logs and reports show. */
const KEY_BYTES_SHOWN = 64;

/** A key as text, shortened; `undefined` if there is none. */
export function shortKey(key: Buffer | null): string | undefined {
  if (key === null) {
    return undefined;
  }
  const text = key.subarray(0, KEY_BYTES_SHOWN).toString();
  return key.length > KEY_BYTES_SHOWN ? `${text}… (${key.length} bytes)` : text;
}
