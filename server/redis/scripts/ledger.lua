-- Shared by all operations: reads, changes and records the ledger of one product.
--
-- Fields of a product's hash: D declared, U its seller's time (µs), A adjusted, S sold,
-- H reserved, F safety, V version, T time of the latest change (ms, clock of Redis), and the fences
-- of the seller's events in µs: P newest create or update, X newest details, K newest deletion.
--
-- Numbers are Lua doubles, exact up to 2^53; redis.call writes them with %.17g, so microseconds
-- of any year up to 2255 survive. Format them with %d, never with tostring or ..: those round to 14 digits.

local operation_retention_ms = tonumber(ARGV[1])
local changes_kept = tonumber(ARGV[2])
local changes_kept_per_product = tonumber(ARGV[3])
local update_ahead_ms_max = tonumber(ARGV[4])
local quantity_max = 2147483647

local clock = redis.call('TIME')
local now_micros = clock[1] * 1000000 + clock[2]
local now_ms = math.floor(now_micros / 1000)

local operations = {}

local function is_integer(value)
  return type(value) == 'number' and value % 1 == 0 and value > -9007199254740992 and value < 9007199254740992
end

local ledger_fields = { 'D', 'U', 'A', 'S', 'H', 'F', 'V', 'T', 'P', 'X', 'K' }
local is_optional = { U = true, P = true, X = true, K = true }

-- Reads a product, or nil. store_product writes exactly the fields that are assigned to the result.
local function load_product(key)
  local texts = read('ledger', 'HMGET', key, unpack(ledger_fields))
  local fields, found = {}, false
  for i, name in ipairs(ledger_fields) do
    if texts[i] then
      found = true
      local value = tonumber(texts[i])
      if not is_integer(value) then
        raise_damage('ledger', key, 'field ' .. name .. ' is not an integer')
      end
      fields[name] = value
    end
  end
  if not found then
    return nil
  end
  for _, name in ipairs(ledger_fields) do
    if not fields[name] and not is_optional[name] then
      raise_damage('ledger', key, 'field ' .. name .. ' is missing')
    end
  end
  return setmetatable({}, { __index = fields })
end

-- Reads a ledger that must exist: a reservation or a completed operation refers to it.
local function require_product(key)
  return load_product(key) or raise_damage('ledger', key, 'the key is missing')
end

-- A new product. Its versions continue after its history, which remains if the ledger was deleted by hand: the IDs of
-- a stream must increase.
local function new_product(history)
  local newest = (attempt(read, 'stream', 'XREVRANGE', history, '+', '-', 'COUNT', 1) or {})[1]
  local version = newest and tonumber(string.match(newest[1], '^%d+')) or 0
  return { D = 0, A = 0, S = 0, H = 0, F = 0, V = version, T = 0 }
end

-- Deleted, or never created. A deletion takes precedence over an update of the same microsecond.
local function is_deleted(p)
  return p.P == nil or (p.K ~= nil and p.K >= p.P)
end

local function on_hand(p)
  return p.D + p.A - p.S
end

local function available(p)
  return math.max(0, on_hand(p) - p.H - p.F)
end

-- Plans the write of the assigned fields; of a new product all of them.
local function store_product(plan, key, p)
  local write = { 'HSET', key }
  for name, value in pairs(p) do
    write[#write + 1] = name
    write[#write + 1] = value
  end
  plan.books[#plan.books + 1] = write
end

-- D U A S H F V T, then 1 if deleted, else 0, separated by spaces; U is empty if absent.
local function ledger_text(p)
  return string.format('%d %s %d %d %d %d %d %d %d', p.D, p.U and string.format('%d', p.U) or '',
    p.A, p.S, p.H, p.F, p.V, p.T, is_deleted(p) and 1 or 0)
end

-- Plans a change as the next version: in the hash, in the product's history and in the bucket's change stream. `keys`
-- has ledger, history and changes.
--
-- A stream entry has one field, c, because the cost of an entry grows with the number of fields. Its
-- lines: cause, delta of available and ledger; product ID; reference; details JSON or empty; and the
-- reason, which may contain line ends and takes the rest.
local function record(plan, keys, product_id, p, cause, available_before, reference, reason, details)
  check_type('stream', 'XLEN', keys.changes)
  p.V = p.V + 1
  p.T = now_ms
  store_product(plan, keys.ledger, p)
  local change = string.format('%s %d %s\n', cause, available(p) - available_before, ledger_text(p))
    .. product_id .. '\n' .. reference .. '\n' .. (details or '') .. '\n' .. reason
  local id = string.format('%d-0', p.V)
  plan.streams[#plan.streams + 1] = {
    'XADD', keys.changes, 'MAXLEN', '~', changes_kept, '*', 'c', change, product_id = product_id, version = p.V,
  }
  plan.streams[#plan.streams + 1] = { 'XADD', keys.history, 'MAXLEN', changes_kept_per_product, id, 'c', change }
end

-- The reply for a product: a status and the ledger.
local function reply(status, p)
  return { status, ledger_text(p) }
end

-- Plans the entry in the set of products.
local function add_product(plan, products, product_id)
  check_type('products', 'SCARD', products)
  plan_write(plan, 'SADD', products, product_id)
end

-- Adopts the count that the Go service keeps in a plain key, as D with U = 0, so that the seller's
-- first event supersedes it. Returns the product, or nil if the key does not hold a count.
local function adopt(plan, keys, product_id)
  if redis.call('TYPE', keys.plain).ok ~= 'string' then
    return nil
  end
  local text = redis.call('GET', keys.plain)
  if not string.find(text, '^%d+$') or #text > 10 or tonumber(text) > quantity_max then
    return nil
  end
  local p = new_product(keys.history)
  p.D = tonumber(text)
  p.U = 0
  p.P = 0
  add_product(plan, keys.products, product_id)
  record(plan, keys, product_id, p, 'declared', 0, '', 'adopted from the plain key')
  return p
end
