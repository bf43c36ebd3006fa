const SEED = 0x9747b28c;
const MULTIPLIER = 0x5bd1e995;

/**
 * The index of a key's partition among `partitions`, as Kafka's Java client computes it (`BuiltInPartitioner.partitionForKey`):
 * MurmurHash2 of the key's bytes (Appleby, https://github.com/aappleby/smhasher), without the sign, modulo the partitions.
 */
export function partitionOfKey(key: string, partitions: number): number {
  return (murmur2(Buffer.from(key)) & 0x7fffffff) % partitions;
}

function murmur2(bytes: Uint8Array): number {
  const { length } = bytes;
  const tail = length & ~3;
  const byte = (at: number): number => bytes[at] ?? 0;
  let hash = SEED ^ length;
  for (let at = 0; at < tail; at += 4) {
    let word = byte(at) | (byte(at + 1) << 8) | (byte(at + 2) << 16) | (byte(at + 3) << 24);
    word = Math.imul(word, MULTIPLIER);
    word = Math.imul(word ^ (word >>> 24), MULTIPLIER);
    hash = Math.imul(hash, MULTIPLIER) ^ word;
  }
  if (tail < length) {
    // Bytes after the end are 0.
    hash = Math.imul(hash ^ (byte(tail) | (byte(tail + 1) << 8) | (byte(tail + 2) << 16)), MULTIPLIER);
  }
  hash = Math.imul(hash ^ (hash >>> 13), MULTIPLIER);
  return hash ^ (hash >>> 15);
}
