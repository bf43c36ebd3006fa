import { type Bytes, foldText, LOWER_CASE } from "./text-order.ts";

/** Texts are stored in chunks of this many bytes, so that growing copies nothing. */
const CHUNK_BYTES = 1 << 20;
/** Texts are aligned to this many bytes, so that a 32-bit address reaches 16 GiB. */
const ALIGNMENT = 4;
const CHUNK_UNITS = CHUNK_BYTES / ALIGNMENT;
/** A chunk with a larger share of garbage is compacted into others. */
const GARBAGE_SHARE_MAX = 0.5;
/** Row (4 bytes), then the lengths of ID, name, description, folded name and folded ID (2 bytes each). */
const HEADER_BYTES = 14;
const PARTS = 5;
/** Upper bound of the UTF-8 bytes of one UTF-16 unit. */
const BYTES_PER_UNIT_MAX = 3;
const PART_BYTES_MAX = 0xffff;
/** In the header of a text that was removed. */
const NO_ROW = 0xffff_ffff;

interface Chunk {
  readonly bytes: Buffer;
  used: number;
  garbage: number;
}

/** A range of a chunk. Two objects are reused for all calls: enough to compare two texts without an allocation. */
interface Span {
  bytes: Uint8Array;
  start: number;
  end: number;
}

/** The texts of one product. */
export interface Texts {
  readonly productId: string;
  readonly name: string;
  readonly description: string;
}

/**
 * The texts of all products as UTF-8 outside of the heap, where the garbage collector does not visit them. Texts that
 * are not ASCII are stored a second time, folded, for searching and sorting; ASCII is folded while it is read. The
 * structure is a log: a changed text is appended, and chunks that are mostly garbage are compacted, one at a time.
 */
export class ProductTexts {
  readonly #chunks: (Chunk | undefined)[] = [];
  readonly #onMoved: (row: number, address: number) => void;
  #scratch = Buffer.allocUnsafeSlow(4_096);
  #open = -1;
  #span: Span = { bytes: this.#scratch, start: 0, end: 0 };
  #nextSpan: Span = { bytes: this.#scratch, start: 0, end: 0 };

  /** `onMoved` receives the new address of a row's texts when its chunk is compacted. */
  constructor(onMoved: (row: number, address: number) => void) {
    this.#onMoved = onMoved;
  }

  /** Bytes allocated for texts. */
  get bytes(): number {
    return this.#chunks.reduce((sum, chunk) => sum + (chunk?.bytes.length ?? 0), 0);
  }

  /** Writes a row's texts and returns their address. */
  add(row: number, { productId, name, description }: Texts): number {
    const bytesMax =
      HEADER_BYTES + BYTES_PER_UNIT_MAX * (productId.length + name.length + description.length);
    this.#reserve(bytesMax);
    this.#scratch.writeUInt32LE(row, 0);
    let end = this.#write(HEADER_BYTES, 0, productId);
    const isAsciiId = end - HEADER_BYTES === productId.length;
    const nameAt = end;
    end = this.#write(end, 1, name);
    const isAsciiName = end - nameAt === name.length;
    end = this.#write(end, 2, description);
    // A folded text is never empty: an empty one means that the text is ASCII.
    const foldedName = isAsciiName ? "" : foldText(name) || " ";
    const foldedId = isAsciiId ? "" : foldText(productId) || " ";
    this.#reserve(end + BYTES_PER_UNIT_MAX * (foldedName.length + foldedId.length));
    end = this.#write(end, 3, foldedName);
    end = this.#write(end, 4, foldedId);
    return this.#append(this.#scratch, 0, end);
  }

  /** Removes the texts at an address. */
  remove(address: number): void {
    const at = Math.floor(address / CHUNK_UNITS);
    const chunk = this.#chunk(at);
    const start = (address % CHUNK_UNITS) * ALIGNMENT;
    chunk.bytes.writeUInt32LE(NO_ROW, start);
    chunk.garbage += aligned(lengthOf(chunk.bytes, start));
    if (at !== this.#open && chunk.garbage > CHUNK_BYTES * GARBAGE_SHARE_MAX) {
      this.#compact(at, chunk);
    }
  }

  read(address: number): Texts {
    const { bytes } = this.#chunk(Math.floor(address / CHUNK_UNITS));
    const start = (address % CHUNK_UNITS) * ALIGNMENT;
    const idAt = start + HEADER_BYTES;
    const nameAt = idAt + uint16(bytes, start + 4);
    const descriptionAt = nameAt + uint16(bytes, start + 6);
    const end = descriptionAt + uint16(bytes, start + 8);
    return {
      productId: bytes.toString("utf8", idAt, nameAt),
      name: bytes.toString("utf8", nameAt, descriptionAt),
      description: bytes.toString("utf8", descriptionAt, end),
    };
  }

  /**
   * The ID. The results of this method and of the next two share two objects: a result is valid until the second call
   * after it.
   */
  id(address: number): Bytes {
    return this.#part(address, 0);
  }

  /** The ID for searching: folded, except that ASCII letters keep their case. */
  searchableId(address: number): Bytes {
    return this.#foldedOr(address, 4, 0);
  }

  /** The name for searching and sorting, in the same form. */
  searchableName(address: number): Bytes {
    return this.#foldedOr(address, 3, 1);
  }

  /** Whether the name or the ID contains a folded word. */
  hasWord(address: number, word: Uint8Array): boolean {
    return includes(this.searchableName(address), word) || includes(this.searchableId(address), word);
  }

  #foldedOr(address: number, folded: number, plain: number): Bytes {
    const span = this.#part(address, folded);
    return span.start < span.end ? span : this.#fill(span, address, plain);
  }

  #part(address: number, part: number): Span {
    const span = this.#nextSpan;
    this.#nextSpan = this.#span;
    this.#span = span;
    return this.#fill(span, address, part);
  }

  #fill(span: Span, address: number, part: number): Span {
    const { bytes } = this.#chunk(Math.floor(address / CHUNK_UNITS));
    const start = (address % CHUNK_UNITS) * ALIGNMENT;
    let at = start + HEADER_BYTES;
    for (let before = 0; before < part; before++) {
      at += uint16(bytes, start + 4 + 2 * before);
    }
    span.bytes = bytes;
    span.start = at;
    span.end = at + uint16(bytes, start + 4 + 2 * part);
    return span;
  }

  #chunk(at: number): Chunk {
    const chunk = this.#chunks[at];
    if (chunk === undefined) {
      throw new RangeError(`No text chunk ${at}`);
    }
    return chunk;
  }

  /** Writes one part, and its length into the header. Returns the end of the part. */
  #write(at: number, part: number, text: string): number {
    const length = text === "" ? 0 : this.#scratch.write(text, at, "utf8");
    if (length > PART_BYTES_MAX) {
      throw new RangeError(
        `A text has ${length} bytes; the maximum is ${PART_BYTES_MAX}: ${text.slice(0, 40)}…`,
      );
    }
    this.#scratch[4 + 2 * part] = length & 0xff;
    this.#scratch[5 + 2 * part] = length >>> 8;
    return at + length;
  }

  #reserve(bytes: number): void {
    if (this.#scratch.length < bytes) {
      const larger = Buffer.allocUnsafeSlow(bytes);
      this.#scratch.copy(larger);
      this.#scratch = larger;
    }
  }

  #append(from: Buffer, start: number, end: number): number {
    const length = aligned(end - start);
    let chunk = this.#chunks[this.#open];
    if (chunk === undefined || chunk.used + length > CHUNK_BYTES) {
      const free = this.#chunks.indexOf(undefined);
      this.#open = free === -1 ? this.#chunks.length : free;
      chunk = { bytes: Buffer.allocUnsafeSlow(CHUNK_BYTES), used: 0, garbage: 0 };
      this.#chunks[this.#open] = chunk;
    }
    from.copy(chunk.bytes, chunk.used, start, end);
    const address = this.#open * CHUNK_UNITS + chunk.used / ALIGNMENT;
    chunk.used += length;
    return address;
  }

  /** Moves the texts in use to the open chunk and releases this one. */
  #compact(at: number, chunk: Chunk): void {
    for (let start = 0; start < chunk.used; ) {
      const length = lengthOf(chunk.bytes, start);
      const row = chunk.bytes.readUInt32LE(start);
      if (row !== NO_ROW) {
        this.#onMoved(row, this.#append(chunk.bytes, start, start + length));
      }
      start += aligned(length);
    }
    this.#chunks[at] = undefined;
  }
}

function lengthOf(bytes: Uint8Array, start: number): number {
  let length = HEADER_BYTES;
  for (let part = 0; part < PARTS; part++) {
    length += uint16(bytes, start + 4 + 2 * part);
  }
  return length;
}

function aligned(bytes: number): number {
  return Math.ceil(bytes / ALIGNMENT) * ALIGNMENT;
}

function uint16(bytes: Uint8Array, at: number): number {
  return (bytes[at] as number) | ((bytes[at + 1] as number) << 8);
}

/** Whether a text contains a folded word. The text is folded, except that ASCII letters keep their case. */
function includes({ bytes, start, end }: Bytes, word: Uint8Array): boolean {
  const first = word[0];
  const last = end - word.length;
  for (let at = start; at <= last; at++) {
    if (LOWER_CASE[bytes[at] as number] === first) {
      let n = 1;
      while (n < word.length && LOWER_CASE[bytes[at + n] as number] === word[n]) {
        n += 1;
      }
      if (n === word.length) {
        return true;
      }
    }
  }
  return false;
}
