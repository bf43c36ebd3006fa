/** A stand-in for what Product Search has of its own: the products it can find. IDs are those of the service's demo. */
export interface Product {
  readonly id: string;
  readonly name: string;
}

const PRODUCTS: readonly Product[] = [
  { id: "demo-01", name: "Floral Dress" },
  { id: "demo-02", name: "Linen Shirt" },
  { id: "demo-03", name: "Canvas Sneakers" },
  { id: "demo-11", name: "Linen Apron" },
  { id: "discontinued", name: "Linen Hat" },
];

export function search(words: string): readonly Product[] {
  return PRODUCTS.filter(({ name }) => name.toLowerCase().includes(words.toLowerCase()));
}
