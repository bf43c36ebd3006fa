#!lua
-- The part that all operations share: one product's ledger, read, changed and recorded.
--
-- The line above makes Redis look before it runs anything whether it could write. Without it a replica, which was
-- the primary before a failover, answers what it once knew, and its READONLY ends in an operation's own reply, where
-- the connection does not see it.
--
-- Fields of a product's hash: D declared, U its seller's time (µs), A adjusted, S sold,
-- H reserved, F safety, V version, T time of the latest change (ms, store's clock), and the fences
-- of the seller's events in µs: P newest create or update, X newest details, K newest deletion.
--
-- Numbers are Lua doubles, exact up to 2^53; redis.call writes them with %.17g, so microseconds
-- of any year up to 2255 survive. Format them with %d, never with tostring or ..: those round to 14 digits.

local operation_retention_ms = tonumber(ARGV[1])
local changes_kept = tonumber(ARGV[2])
local changes_kept_per_product = tonumber(ARGV[3])
local update_ahead_ms_max = tonumber(ARGV[4])

local clock = redis.call('TIME')
local now_micros = clock[1] * 1000000 + clock[2]
local now_ms = math.floor(now_micros / 1000)

local operations = {}

-- Product IDs and the versions they came to, of all operations.
local touched = {}

-- The product as it stands in Redis, or nil. What is assigned to it is what store_product writes.
local function load_product(key)
  local f = redis.call('HMGET', key, 'D', 'U', 'A', 'S', 'H', 'F', 'V', 'T', 'P', 'X', 'K')
  if not f[7] then
    return nil
  end
  return setmetatable({}, { __index = {
    D = tonumber(f[1]), U = tonumber(f[2]), A = tonumber(f[3]), S = tonumber(f[4]),
    H = tonumber(f[5]), F = tonumber(f[6]), V = tonumber(f[7]), T = tonumber(f[8]),
    P = tonumber(f[9]), X = tonumber(f[10]), K = tonumber(f[11]),
  } })
end

-- Its versions go on where its history ends: a ledger that was deleted by hand has left one, which takes no earlier version.
local function new_product(history)
  local newest = redis.call('XREVRANGE', history, '+', '-', 'COUNT', 1)[1]
  local version = newest and tonumber(string.match(newest[1], '^%d+')) or 0
  return { D = 0, A = 0, S = 0, H = 0, F = 0, V = version, T = 0 }
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

-- Writes the fields that were assigned, of a new product all.
local function store_product(key, p)
  local fields = { 'HSET', key }
  for name, value in pairs(p) do
    fields[#fields + 1] = name
    fields[#fields + 1] = value
  end
  redis.call(unpack(fields))
end

-- D U A S H F V T and 1 where it is deleted, else 0, with a space between two; U is empty where it is absent.
local function ledger_text(p)
  return string.format('%d %s %d %d %d %d %d %d %d', p.D, p.U and string.format('%d', p.U) or '',
    p.A, p.S, p.H, p.F, p.V, p.T, is_deleted(p) and 1 or 0)
end

-- Makes the change visible: the next version, in the hash, in the product's history and in the
-- bucket's change stream. `keys` has ledger, history and changes.
--
-- An entry of the streams has one field, c, since every field costs each reader more than what is in
-- it. Its lines: cause, change of available and ledger; product ID; reference; details JSON or
-- nothing; and the reason, which alone may hold line ends and has the rest.
local function record(keys, product_id, p, cause, available_before, reference, reason, details)
  p.V = p.V + 1
  p.T = now_ms
  touched[#touched + 1] = product_id
  touched[#touched + 1] = p.V
  store_product(keys.ledger, p)
  local change = string.format('%s %d %s\n', cause, available(p) - available_before, ledger_text(p))
    .. product_id .. '\n' .. reference .. '\n' .. (details or '') .. '\n' .. reason
  redis.call('XADD', keys.history, 'MAXLEN', changes_kept_per_product, string.format('%d-0', p.V), 'c', change)
  redis.call('XADD', keys.changes, 'MAXLEN', '~', changes_kept, '*', 'c', change)
end

-- The reply for a product: a word, and the ledger.
local function reply(word, p)
  return { word, ledger_text(p) }
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
  local p = new_product(keys.history)
  p.D = tonumber(text)
  p.U = 0
  p.P = 0
  redis.call('SADD', keys.products, product_id)
  record(keys, product_id, p, 'declared', 0, '', 'adopted from the plain key')
  return p
end
