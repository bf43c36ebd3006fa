/** Gives collections small numbers for as long as a product is in them. 0 is no collection, whose ID is empty. */
export class CollectionNumbers {
  readonly #ids: string[] = [""];
  readonly #products: number[] = [0];
  readonly #numbers = new Map<string, number>([["", 0]]);
  readonly #free: number[] = [];

  find(collectionId: string): number | undefined {
    return this.#numbers.get(collectionId);
  }

  idOf(number: number): string {
    return this.#ids[number] ?? "";
  }

  /** Counts one more product in the collection, and returns its number. */
  enter(collectionId: string): number {
    let number = this.#numbers.get(collectionId);
    if (number === undefined) {
      number = this.#free.pop() ?? this.#ids.length;
      this.#ids[number] = collectionId;
      this.#products[number] = 0;
      this.#numbers.set(collectionId, number);
    }
    this.#products[number] = (this.#products[number] ?? 0) + 1;
    return number;
  }

  /** Counts one product less; the number of a collection without products is used again. */
  leave(number: number): void {
    const products = (this.#products[number] ?? 0) - 1;
    this.#products[number] = products;
    if (products === 0 && number !== 0) {
      this.#numbers.delete(this.idOf(number));
      this.#free.push(number);
    }
  }
}
