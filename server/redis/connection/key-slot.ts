const SLOTS = 16_384;

/**
 * The hash slot of a key: CRC-16/XMODEM, modulo 16,384, of its hash tag, which is the text between the first `{` and the next
 * `}` if that is not empty, or else of the whole key (Redis Cluster specification, "Key distribution model").
 */
export function keySlot(key: string): number {
  const tag = /^[^{]*\{([^}]+)\}/.exec(key)?.[1] ?? key;
  let crc = 0;
  for (const byte of Buffer.from(tag)) {
    crc ^= byte << 8;
    for (let bit = 0; bit < 8; bit++) {
      crc = ((crc << 1) ^ (crc & 0x8000 ? 0x1021 : 0)) & 0xffff;
    }
  }
  return crc % SLOTS;
}
