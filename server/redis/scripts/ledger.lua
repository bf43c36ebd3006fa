-- Reads, changes and records the ledger of one product.
--
-- Fields of a product's hash: D declared, U its seller's time (µs), A adjusted, S sold,
-- H reserved, F safety, V version, T time of the latest change (ms, clock of Redis), and the fences
-- of the seller's events in µs: P newest create or update, X newest details, K newest deletion.
-- Q and R have the time and the delivery of the newest declaration and of the newest details (product-event.lua).

local ledger_fields = { 'D', 'U', 'A', 'S', 'H', 'F', 'V', 'T', 'P', 'X', 'K' }
local is_optional = { U = true, P = true, X = true, K = true }

-- Raises damage for the first field that is missing or not an integer.
local function raise_ledger_damage(key, texts)
  for i, name in ipairs(ledger_fields) do
    if not texts[i] and not is_optional[name] then
      raise_damage('ledger', key, 'field ' .. name .. ' is missing')
    elseif texts[i] and not is_integer(tonumber(texts[i])) then
      raise_damage('ledger', key, 'field ' .. name .. ' is not an integer')
    end
  end
  raise_damage('ledger', key, 'a field is not an integer')
end

-- Reads the ledger of a product as Redis has it, or nil.
local function read_ledger(key)
  local f = read('ledger', 'HMGET', key, 'D', 'U', 'A', 'S', 'H', 'F', 'V', 'T', 'P', 'X', 'K')
  local D, A, S, H, F = tonumber(f[1]), tonumber(f[3]), tonumber(f[4]), tonumber(f[5]), tonumber(f[6])
  local V, T = tonumber(f[7]), tonumber(f[8])
  local U, P, X, K = tonumber(f[2]), tonumber(f[9]), tonumber(f[10]), tonumber(f[11])
  if not (D and A and S and H and F and V and T) then
    for i = 1, #ledger_fields do
      if f[i] then
        raise_ledger_damage(key, f)
      end
    end
    return nil
  end
  -- Fractions leave a remainder, NaN and infinity are not equal to 0, and squares need no sign.
  local remainders = D % 1 + A % 1 + S % 1 + H % 1 + F % 1 + V % 1 + T % 1
    + (U or 0) % 1 + (P or 0) % 1 + (X or 0) % 1 + (K or 0) % 1
  local squares = D * D + A * A + S * S + H * H + F * F + V * V + T * T
  if remainders ~= 0 or squares >= integer_max * integer_max
    or (f[2] and not U) or (f[9] and not P) or (f[10] and not X) or (f[11] and not K) then
    raise_ledger_damage(key, f)
  end
  return { D = D, U = U, A = A, S = S, H = H, F = F, V = V, T = T, P = P, X = X, K = K }
end

-- A product as the earlier operations of the batch have left it, or nil. The caller assigns the fields that it changes to
-- the result. They take effect when a plan with them runs (plan_ledger).
local function load_product(key)
  local ledger = ledgers[key]
  if not ledger then
    ledger = read_ledger(key)
    if not ledger then
      return nil
    end
    ledger.__index = ledger
    ledgers[key] = ledger
  end
  return setmetatable({}, ledger)
end

-- Reads a ledger that must exist: a reservation or a completed operation refers to it.
local function require_product(key)
  return load_product(key) or raise_damage('ledger', key, 'the key is missing')
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

-- D U A S H F V T, then 1 if deleted, else 0, separated by spaces; U is empty if absent.
local function ledger_text(p)
  return string.format('%d %s %d %d %d %d %d %d %d', p.D, p.U and string.format('%d', p.U) or '',
    p.A, p.S, p.H, p.F, p.V, p.T, is_deleted(p) and 1 or 0)
end

-- Plans a change as the next version: in the hash, in the product's history and in the bucket's change stream. `keys`
-- has ledger, history and changes, and `is_derived` if they are not in KEYS.
--
-- A stream entry has one field, c, because the cost of an entry grows with the number of fields. Its
-- lines: cause, delta of available, ledger and actor; product ID; reference; details JSON or empty; and the
-- reason, which may contain line ends and takes the rest. The actor takes the rest of its line: releases without
-- actors read nine fields of a ledger and ignore what follows. `by` replaces the operation's actor.
local function record(plan, keys, product_id, p, cause, available_before, reference, reason, details, by)
  p.V = p.V + 1
  p.T = now_ms
  plan_ledger(plan, keys.ledger, p)
  local change = string.format('%s %d %s ', cause, available(p) - available_before, ledger_text(p))
    .. (by or actor) .. '\n' .. product_id .. '\n' .. reference .. '\n' .. (details or '') .. '\n' .. reason
  if keys.is_derived then
    check_permission('HSET', keys.ledger, 'V', '')
    check_permission('XADD', keys.changes, '*', 'c', '')
    check_permission('XADD', keys.history, '*', 'c', '')
  end
  plan_change(plan, keys, product_id, p.V, change)
end

-- The reply for a product: a status and the ledger.
local function reply(status, p)
  return { status, ledger_text(p) }
end
