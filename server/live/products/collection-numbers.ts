/** Assigns small numbers to the collections that have products. 0 stands for no collection, whose ID is empty. */
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

  /** The numbers of all collections that have products, without 0. */
  numbers(): number[] {
    return [...this.#numbers.values()].filter((number) => number !== 0);
  }

  /** Adds a product to a collection and returns the collection's number. */
  add(collectionId: string): number {
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

  /** Removes a product from a collection. The number of an empty collection is reused. */
  remove(number: number): void {
    const products = (this.#products[number] ?? 0) - 1;
    this.#products[number] = products;
    if (products === 0 && number !== 0) {
      this.#numbers.delete(this.idOf(number));
      this.#free.push(number);
    }
  }
}
