/** Both alphabets of RFC 4648: protobuf JSON and the Connect protocol accept either. */
const BASE64 = /^[\w+/-]*={0,2}$/;

/** Whether a text is base64 and nothing else, with padding or without. Decoders skip what is not. */
export function isBase64(text: string): boolean {
  const length = text.replace(/=+$/, "").length;
  return BASE64.test(text) && length % 4 !== 1 && (length === text.length || text.length % 4 === 0);
}
