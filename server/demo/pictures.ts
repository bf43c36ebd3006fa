import { DEMO_CATALOG } from "./catalog.ts";

/** By the product's name: the path data of an SVG in strokes, on a grid of 48 by 48. Drawn for this demo. */
const PATHS: Readonly<Record<string, string>> = {
  "Floral Dress": "M18 6l2 6h8l2-6M20 12l-2 10-7 18h26l-7-18-2-10M18 22h12M20 31h.01M28 34h.01M24 27h.01",
  "Linen Shirt":
    "M18 7l-11 6 3 9 5-2v21h18V20l5 2 3-9-11-6c-1 4-11 4-12 0zM24 11v30M27 20h.01M27 27h.01M27 34h.01",
  "Canvas Sneakers": "M6 20v14h36v-4c0-4-6-5-10-6l-9-8-5 4c-4 2-9 2-12 0zM6 34v3h36v-3M22 25l4-5M27 27l3-4",
  "Straw Hat":
    "M14 28c0-11 3-15 10-15s10 4 10 15M14 25c6 2 14 2 20 0M14 28c-4 0-7 1-10 3 8 6 32 6 40 0-3-2-6-3-10-3",
  "Rain Jacket":
    "M18 10l-10 5-3 20h7v6h24v-6h7l-3-20-10-5M18 10c2-5 10-5 12 0-2 5-10 5-12 0zM24 14v27M12 35l1-12M36 35l-1-12M16 31h4M28 31h4",
  "Silk Scarf":
    "M14 8c6 5 14 5 20 0l3 6c-8 7-18 7-26 0zM20 18l-5 22 6-2 3-19M28 18l5 18-6 2-3-12M16 36l5-1M32 33l-5 1",
  "Carbon Steel Pan":
    "M30 25a12 10 0 1 1-24 0 12 10 0 0 1 24 0zM27 25a9 7 0 1 1-18 0 9 7 0 0 1 18 0zM29 21l14-6 1 3-14 7M40 18h.01",
  "Chef's Knife": "M4 33L29 15l3 6c-8 8-16 12-28 12zM29 15l13-8 3 5-13 9M35 15h.01M40 12h.01",
  "Enamel Mug":
    "M9 12h23v22c0 3-2 5-5 5H14c-3 0-5-2-5-5zM32 17h4c7 0 7 13-4 14M9 17h23M16 26h.01M25 31h.01M24 23h.01",
  "Stoneware Bowl": "M5 20h38c0 10-7 17-14 17H19C12 37 5 30 5 20zM18 37v4h12v-4M9 27c9 3 21 3 30 0",
  "Linen Apron":
    "M18 7c0 6 12 6 12 0M18 7l-2 10-8 6v18h32V23l-8-6-2-10M8 25l-4 4M40 25l4 4M17 27h14v8H17zM24 27v8",
  "Pepper Mill":
    "M24 5a3 3 0 1 0 .1 0M18 14c0-3 12-3 12 0l-1 6H19zM19 20l-2 8h14l-2-8M17 28l-2 13h18l-2-13M16 36h16",
  "Fountain Pen": "M34 5l9 9-16 18-12 3 3-12zM15 35l-6 7M15 35l7-8M28 11l9 9M6 43h14",
  "Dot Grid Notebook":
    "M12 6h24v36H12zM17 6v36M9 12h5M9 20h5M9 28h5M9 36h5M23 14h.01M30 14h.01M23 21h.01M30 21h.01M23 28h.01M30 28h.01M23 35h.01M30 35h.01",
  "Desk Lamp": "M12 42h18M21 42V31L12 21l9-9M20 6l13 10-5 7-12-10zM33 24l3 5M27 27v5M37 20l5 2",
  "Wool Felt Mat":
    "M7 13h34a2 2 0 0 1 2 2v18a2 2 0 0 1-2 2H7a2 2 0 0 1-2-2V15a2 2 0 0 1 2-2zM9 17h3M15 17h3M21 17h3M27 17h3M33 17h3M9 31h3M15 31h3M21 31h3M27 31h3M33 31h3",
  "Brass Ruler": "M6 33L33 6l9 9-27 27zM11 28l4 4M16 23l3 3M21 18l4 4M26 13l3 3M31 8l4 4",
  "Cork Board": "M6 10h36v28H6zM9 13h30v22H9zM15 20h9v9h-9zM28 19h6v8h-6zM19.5 20v-2M31 19v-2",
  "Wool Blanket":
    "M8 10h26a6 6 0 0 1 6 6v22H14a6 6 0 0 1-6-6zM34 10a6 6 0 0 0-6 6v22M12 18h12M12 24h12M12 30h12M17 38v4M23 38v4M29 38v4M35 38v4",
  "Camping Stove":
    "M10 42l4-10h20l4 10M14 32v-5h20v5M12 22h24M16 22v5M32 22v5M24 19c-6-4 1-8-1-13 6 3 7 9 3 13",
  Headlamp:
    "M16 18h16v14H16zM28 25a4 4 0 1 1-8 0 4 4 0 0 1 8 0zM16 21c-6 0-9 3-12 7M32 21c6 0 9 3 12 7M24 12V7M16 13l-3-4M32 13l3-4",
  "Dry Bag":
    "M14 14h20v24c0 3-2 4-4 4H18c-2 0-4-1-4-4zM12 10h24v4H12zM18 10c0-6 12-6 12 0M14 21h20M24 27c4 5 3 8 0 8s-4-3 0-8z",
  "Trail Backpack":
    "M14 18c0-14 20-14 20 0v22H14zM20 8c0-5 8-5 8 0M18 26h12v9H18zM18 29h12M14 22c-5 1-5 2-5 16h5M34 22c5 1 5 2 5 16h-5M18 19h12",
  Thermos: "M18 5h12v7H18zM16 12h16v28c0 2-1 3-3 3H19c-2 0-3-1-3-3zM16 19h16M16 35h16M22 24v6",
};

/** By product ID. */
export const DEMO_PICTURES: Readonly<Record<string, string>> = Object.fromEntries(
  DEMO_CATALOG.flatMap(({ productId, details }) => {
    const path = PATHS[details.name];
    return path === undefined ? [] : [[productId, path]];
  }),
);
