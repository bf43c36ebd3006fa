-- The part that all operations share: one product's ledger, read, changed and recorded.
--
-- Fields of a product's hash: D declared, U its seller's time (µs), A adjusted, S sold,
-- H reserved, F safety, V version, T time of the latest change (ms, store's clock), and the fences
-- of the seller's events in µs: P newest create or update, X newest details, K newest deletion.
--
-- Numbers are Lua doubles, exact up to 2^53; redis.call writes them with %.17g, so microseconds
-- of any year up to 2255 survive. Never use tostring or .. on them: those round to 14 digits.

local operation_retention_ms = tonumber(ARGV[1])
local changes_kept = tonumber(ARGV[2])
local changes_kept_per_product = tonumber(ARGV[3])
local update_ahead_ms_max = tonumber(ARGV[4])
local operations_start = 5

local clock = redis.call('TIME')
local now_micros = clock[1] * 1000000 + clock[2]
local now_ms = math.floor(now_micros / 1000)

local operations = {}

-- Product IDs and the versions they came to, of the operation under way.
local touched = {}

local function load_product(key)
  local f = redis.call('HMGET', key, 'D', 'U', 'A', 'S', 'H', 'F', 'V', 'T', 'P', 'X', 'K')
  if not f[7] then
    return nil
  end
  return {
    D = tonumber(f[1]), U = tonumber(f[2]), A = tonumber(f[3]), S = tonumber(f[4]),
    H = tonumber(f[5]), F = tonumber(f[6]), V = tonumber(f[7]), T = tonumber(f[8]),
    P = tonumber(f[9]), X = tonumber(f[10]), K = tonumber(f[11]),
  }
end

local function new_product()
  return { D = 0, A = 0, S = 0, H = 0, F = 0, V = 0, T = 0 }
end

-- Deleted, or never created. A deletion wins over an update of the same microsecond.
local function is_deleted(p)
  return p.P == nil or (p.K ~= nil and p.K >= p.P)
end

local function on_hand(p)
  return p.D + p.A - p.S
end

local function available(p)
  return math.max(0, on_hand(p) - p.H - p.F)
end

-- Writes all fields that are set.
local function store_product(key, p)
  local fields = { 'HSET', key, 'D', p.D, 'A', p.A, 'S', p.S, 'H', p.H, 'F', p.F, 'V', p.V, 'T', p.T }
  for _, name in ipairs({ 'U', 'P', 'X', 'K' }) do
    if p[name] ~= nil then
      fields[#fields + 1] = name
      fields[#fields + 1] = p[name]
    end
  end
  redis.call(unpack(fields))
end

-- Makes the change visible: the next version, in the hash, in the product's history and in the
-- bucket's change stream. `keys` has ledger, history and changes.
local function record(keys, product_id, p, cause, available_before, reference, reason, details)
  p.V = p.V + 1
  p.T = now_ms
  touched[#touched + 1] = product_id
  touched[#touched + 1] = p.V
  store_product(keys.ledger, p)
  local entry = {
    'p', product_id, 'c', cause, 'd', available(p) - available_before,
    'D', p.D, 'U', p.U or '', 'A', p.A, 'S', p.S, 'H', p.H, 'F', p.F, 'V', p.V,
    'K', is_deleted(p) and 1 or 0, 'T', p.T, 'r', reference, 'w', reason, 'x', details or '',
  }
  redis.call('XADD', keys.history, 'MAXLEN', changes_kept_per_product, string.format('%.0f-0', p.V), unpack(entry))
  redis.call('XADD', keys.changes, 'MAXLEN', '~', changes_kept, '*', unpack(entry))
end

-- The reply for a product: a word, and the ledger in a fixed order.
local function reply(word, p, ...)
  return { word, p.D, p.U or false, p.A, p.S, p.H, p.F, p.V, p.T, is_deleted(p) and 1 or 0, ... }
end

-- Takes over the count that the old Go service kept in a plain key, as D with U = 0, so that the
-- seller's first event supersedes it. Returns the product, or nil where there is no whole number.
local function adopt(keys, product_id)
  if redis.call('TYPE', keys.plain).ok ~= 'string' then
    return nil
  end
  local text = redis.call('GET', keys.plain)
  if not string.find(text, '^%d+$') or #text > 10 or tonumber(text) > 2147483647 then
    return nil
  end
  local p = new_product()
  p.D = tonumber(text)
  p.U = 0
  p.P = 0
  redis.call('SADD', keys.products, product_id)
  record(keys, product_id, p, 'declared', 0, '', 'adopted from the plain key')
  return p
end
