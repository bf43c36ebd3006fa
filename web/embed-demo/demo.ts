import type { StockChangeDetail } from "../embed/stock-count.ts";

// Shows the element's event in a line at the bottom of the page.

const ticker = document.querySelector("#ticker");

document.addEventListener("stock-change", (event) => {
  if (!(event instanceof CustomEvent) || !(event.target instanceof Element) || ticker === null) return;
  const { previous, available } = event.detail as StockChangeDetail;
  const name = event.target.parentElement?.querySelector("h3")?.textContent ?? "Trail Backpack";
  if (previous !== undefined) ticker.textContent = `${name}, from ${previous} to ${available}`;
});
