import type { StockChangeDetail } from "../embed/stock-count.ts";

// What a storefront may do with the element's event: here, a line of news at the foot of the page.

const ticker = document.querySelector("#ticker");

document.addEventListener("stock-change", (event) => {
  if (!(event instanceof CustomEvent) || !(event.target instanceof Element) || ticker === null) return;
  const { previous, available } = event.detail as StockChangeDetail;
  const name = event.target.parentElement?.querySelector("h3")?.textContent ?? "Trail Backpack";
  if (previous !== undefined) ticker.textContent = `${name}, from ${previous} to ${available}`;
});
