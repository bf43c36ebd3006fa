#!lua
-- Shared by all operations: reads, changes and records the ledger of one product.
--
-- The shebang makes Redis check before the script runs whether writes are possible. Without it, a replica (the
-- primary before a failover) would serve reads of stale data, and its READONLY error would appear in the reply of one
-- operation, where the connection does not see it.
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

local clock = redis.call('TIME')
local now_micros = clock[1] * 1000000 + clock[2]
local now_ms = math.floor(now_micros / 1000)

local operations = {}

-- Changed products of all operations: product ID and new version, alternating.
local changed = {}

-- By change stream its newest entry: ID, product ID, version.
local newest_entries = {}

-- Reads a product, or nil. store_product writes exactly the fields that are assigned to the result.
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

-- A new product. Its versions continue after its history, which remains if the ledger was deleted by hand: the IDs of
-- a stream must increase.
local function new_product(history)
  local newest = redis.call('XREVRANGE', history, '+', '-', 'COUNT', 1)[1]
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

-- Writes the assigned fields; of a new product all of them.
local function store_product(key, p)
  local fields = { 'HSET', key }
  for name, value in pairs(p) do
    fields[#fields + 1] = name
    fields[#fields + 1] = value
  end
  redis.call(unpack(fields))
end

-- D U A S H F V T, then 1 if deleted, else 0, separated by spaces; U is empty if absent.
local function ledger_text(p)
  return string.format('%d %s %d %d %d %d %d %d %d', p.D, p.U and string.format('%d', p.U) or '',
    p.A, p.S, p.H, p.F, p.V, p.T, is_deleted(p) and 1 or 0)
end

-- Records a change as the next version: in the hash, in the product's history and in the bucket's
-- change stream. `keys` has ledger, history and changes.
--
-- A stream entry has one field, c, because the cost of an entry grows with the number of fields. Its
-- lines: cause, delta of available and ledger; product ID; reference; details JSON or empty; and the
-- reason, which may contain line ends and takes the rest.
local function record(keys, product_id, p, cause, available_before, reference, reason, details)
  p.V = p.V + 1
  p.T = now_ms
  changed[#changed + 1] = product_id
  changed[#changed + 1] = p.V
  store_product(keys.ledger, p)
  local change = string.format('%s %d %s\n', cause, available(p) - available_before, ledger_text(p))
    .. product_id .. '\n' .. reference .. '\n' .. (details or '') .. '\n' .. reason
  redis.call('XADD', keys.history, 'MAXLEN', changes_kept_per_product, string.format('%d-0', p.V), 'c', change)
  local entry_id = redis.call('XADD', keys.changes, 'MAXLEN', '~', changes_kept, '*', 'c', change)
  newest_entries[keys.changes] = { entry_id, product_id, p.V }
end

-- The reply for a product: a status and the ledger.
local function reply(status, p)
  return { status, ledger_text(p) }
end

-- Adopts the count that the Go service keeps in a plain key, as D with U = 0, so that the seller's
-- first event supersedes it. Returns the product, or nil if the key does not hold a count.
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
