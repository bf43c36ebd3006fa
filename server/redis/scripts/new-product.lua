-- Products that have no ledger yet.

-- A new product. Its versions continue after its history, which remains if the ledger was deleted by hand: the IDs of
-- a stream must increase.
local function new_product(history)
  local newest = (attempt(read, 'stream', 'XREVRANGE', history, '+', '-', 'COUNT', 1) or {})[1]
  local version = newest and tonumber(string.match(newest[1], '^%d+')) or 0
  return { D = 0, A = 0, S = 0, H = 0, F = 0, V = version, T = 0 }
end

-- Plans the entry in the set of products.
local function add_product(plan, products, product_id)
  check_type('products', 'SCARD', products)
  plan_write(plan, 'SADD', products, product_id)
end

-- Adopts the count that the Go service keeps in a plain key, as D with U = 0, so that the seller's
-- first event supersedes it. The caller has read the key, which is in another slot.
local function adopt(plan, keys, product_id, count)
  local p = new_product(keys.history)
  p.D = count
  p.U = 0
  p.P = 0
  add_product(plan, keys.products, product_id)
  record(plan, keys, product_id, p, 'declared', 0, '', 'adopted from the plain key', nil, 'system:adopt')
  return p
end
