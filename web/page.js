// The first page: the demo shop's counts, read once a second by a cacheable Connect GET.
const POLL_INTERVAL_MS = 1_000;
const productIds = Array.from({ length: 24 }, (_, n) => `demo-${String(n + 1).padStart(2, "0")}`);
const query = new URLSearchParams({
  connect: "v1",
  encoding: "json",
  message: JSON.stringify({ productIds }),
});
const list = document.querySelector("#products");
const status = document.querySelector("#status");
const counts = new Map();

function show(stock) {
  let count = counts.get(stock.productId);
  if (count === undefined) {
    const item = document.createElement("li");
    count = document.createElement("b");
    item.append(stock.product?.name ?? stock.productId, count);
    list.append(item);
    counts.set(stock.productId, count);
  }
  const left = stock.available ?? 0;
  count.textContent = left === 0 ? "Sold out" : `${left} left`;
}

async function poll() {
  try {
    const response = await fetch(`/inventory.v1.StockService/BatchGetStock?${query}`);
    if (!response.ok) {
      throw new Error(`HTTP ${response.status}`);
    }
    const { stocks = [] } = await response.json();
    stocks.forEach(show);
    list.classList.remove("stale");
    status.textContent =
      stocks.length > 0 ? `As of ${new Date().toLocaleTimeString()}` : "There are no demo products here.";
  } catch {
    list.classList.add("stale");
    status.textContent = "No connection: these are the last counts known. Trying again…";
  }
  setTimeout(poll, POLL_INTERVAL_MS);
}

poll();
