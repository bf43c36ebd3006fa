/** A time in µs since 1970 as protobuf JSON writes it: RFC 3339 in UTC with 0, 3 or 6 fractional digits. */
export function timeText(micros: number): string {
  const ms = Math.floor(micros / 1_000);
  const text = new Date(ms).toISOString();
  const belowMs = micros - ms * 1_000;
  if (belowMs > 0) {
    return `${text.slice(0, -1)}${String(belowMs).padStart(3, "0")}Z`;
  }
  return text.endsWith(".000Z") ? `${text.slice(0, -5)}Z` : text;
}
