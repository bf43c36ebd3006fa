import type { Collection } from "../inventory/collection.ts";
import type { ProductDetails } from "../inventory/ledger.ts";

/** A product of the demo shop, with the units that its seller declares at first. */
export interface DemoProduct {
  readonly productId: string;
  readonly declared: number;
  readonly details: ProductDetails;
}

/** On the page, unless SHOP_NAME is set. */
export const DEMO_SHOP_NAME = "Harbour Goods";

export const DEMO_COLLECTIONS: readonly Collection[] = [
  { collectionId: "spring", name: "Spring", description: "New arrivals for the season." },
  { collectionId: "kitchen", name: "Kitchen", description: "Tools that last." },
  { collectionId: "desk", name: "Desk", description: "For quiet work." },
  { collectionId: "outdoors", name: "Outdoors", description: "For a night under the sky." },
];

const SHELVES: readonly {
  readonly collectionId: string;
  readonly products: readonly [string, string, number, number][];
}[] = [
  {
    collectionId: "spring",
    products: [
      ["Floral Dress", "Cotton voile, printed by hand.", 89, 24],
      ["Linen Shirt", "Washed linen with shell buttons.", 65, 40],
      ["Canvas Sneakers", "Undyed canvas, natural rubber.", 72, 18],
      ["Straw Hat", "Woven raffia with a wide brim.", 38, 12],
      ["Rain Jacket", "Taped seams, packs into its pocket.", 129, 9],
      ["Silk Scarf", "Twill, rolled hem.", 54, 6],
    ],
  },
  {
    collectionId: "kitchen",
    products: [
      ["Carbon Steel Pan", "26 cm, seasoned and ready.", 59, 30],
      ["Chef's Knife", "20 cm blade, ash handle.", 95, 14],
      ["Enamel Mug", "Two coats of enamel on steel.", 14, 120],
      ["Stoneware Bowl", "Thrown and glazed by hand.", 28, 45],
      ["Linen Apron", "Crossed back, two pockets.", 42, 22],
      ["Pepper Mill", "Beech, with a steel grinder.", 36, 5],
    ],
  },
  {
    collectionId: "desk",
    products: [
      ["Fountain Pen", "Steel nib, fine.", 48, 16],
      ["Dot Grid Notebook", "160 pages that lie flat.", 18, 200],
      ["Desk Lamp", "Warm light, dimmable.", 110, 8],
      ["Wool Felt Mat", "Keeps a desk quiet.", 39, 25],
      ["Brass Ruler", "30 cm, engraved.", 22, 33],
      ["Cork Board", "60 by 40 cm, oak frame.", 34, 3],
    ],
  },
  {
    collectionId: "outdoors",
    products: [
      ["Wool Blanket", "Recycled wool, 140 by 200 cm.", 84, 20],
      ["Camping Stove", "Boils a litre in four minutes.", 62, 11],
      ["Headlamp", "400 lumens, rechargeable.", 45, 50],
      ["Dry Bag", "20 litres, welded seams.", 27, 60],
      ["Trail Backpack", "28 litres, with a rain cover.", 139, 7],
      ["Thermos", "Hot for twelve hours.", 32, 80],
    ],
  },
];

/** 24 products, `demo-01` to `demo-24`. */
export const DEMO_CATALOG: readonly DemoProduct[] = SHELVES.flatMap(({ collectionId, products }) =>
  products.map(([name, description, price, declared]) => ({
    declared,
    details: { name, description, price, collectionId },
  })),
).map((product, index) => ({ ...product, productId: `demo-${String(index + 1).padStart(2, "0")}` }));
