-- Reservations in a Cluster, where every script call touches one bucket: the steps of the buckets of the products. The
-- rules are those of memory/holds.ts, the protocol is in inventory/sharded/. hold-record.lua has the record.

-- KEYS of a step: hold, undecided; then for each of `ids` ledger, history, changes. Those of other products that the hold
-- names are derived. Products are loaded once, so that several changes of one step add up.
local function hold_keys(k, ids)
  local keys = { hold = k[1], undecided = k[2], products = {}, loaded = {} }
  local bucket = tonumber(string.match(k[1], '^{b(%d+)}'))
  setmetatable(keys.products, {
    __index = function(products, id)
      products[id] = product_keys(id, bucket)
      return products[id]
    end,
  })
  for i, id in ipairs(ids) do
    keys.products[id] = { ledger = k[3 * i], history = k[3 * i + 1], changes = k[3 * i + 2] }
  end
  return keys
end

local function product_of(keys, id)
  if keys.loaded[id] == nil then
    keys.loaded[id] = load_product(keys.products[id].ledger) or false
  end
  return keys.loaded[id] or nil
end

-- Plans a change of one ledger by units held and sold. Returns its version, or nil if there is nothing to change. Skips a
-- product whose ledger was deleted by hand.
local function plan_units(plan, keys, id, cause, reference, held, sold, by)
  if held == 0 and sold == 0 then
    return nil
  end
  local p = product_of(keys, id)
  if not p then
    report_damage('ledger', keys.products[id].ledger, 'the key is missing')
    return nil
  end
  local available_before = available(p)
  p.H = p.H + held
  p.S = p.S + sold
  record(plan, keys.products[id], id, p, cause, available_before, reference, '', nil, by)
  return p.V
end

-- The line of a product, or nil.
local function line_of(lines, id)
  for _, line in ipairs(lines) do
    if line[1] == id then
      return line
    end
  end
end

local function is_nothing_held(x)
  for _, line in ipairs(x.lines) do
    if line[2] ~= 0 then
      return false
    end
  end
  return true
end

-- Plans the hold as undecided since now, as decided, or as ended, after which it is kept for the retention.
local function plan_hold(plan, keys, id, x, state)
  check_type('undecided', 'ZCARD', keys.undecided)
  local text = cjson.encode(x)
  if state == 'ended' then
    plan_write(plan, 'SET', keys.hold, text, 'PX', operation_retention_ms)
  else
    plan_write(plan, 'SET', keys.hold, text)
  end
  if state == 'undecided' then
    plan_write(plan, 'ZADD', keys.undecided, now_ms, id)
  else
    plan_write(plan, 'ZREM', keys.undecided, id)
  end
end

-- Brings ledgers and hold to the targets of one effect.
local function apply_effect(plan, keys, id, x, effect)
  local returned = {}
  for _, target in ipairs(effect.targets) do
    local line = line_of(x.lines, target[1])
    if not line then
      line = { target[1], 0, 0 }
      x.lines[#x.lines + 1] = line
    end
    local held, sold = target[2] - line[2], target[3] - line[3]
    local cause = effect.cause == 'committed' and sold == 0 and 'released' or effect.cause
    local reference = effect.cause == 'returned' and effect.reference or id
    local version = plan_units(plan, keys, target[1], cause, reference, held, sold, effect.actor or '')
    line[2], line[3] = target[2], target[3]
    if version and effect.cause == 'returned' then
      returned[#returned + 1] = { target[1], version }
    end
  end
  if #returned > 0 then
    local key = string.match(keys.hold, '^{b%d+}') .. ':ref:' .. effect.reference
    check_permission('SET', key, '')
    plan_reference(plan, key, returned)
  end
  x.revision = effect.revision
end

-- Applies the effects that are newer than the hold. Returns the hold. Older ones change nothing: the hold may be a later, undecided one.
local function apply_effects(plan, keys, id, x, effects)
  local newest = effects[#effects]
  if x and newest.revision <= x.revision then
    return x
  end
  x = x or { epoch = newest.epoch, print = '', revision = -1, lines = {} }
  for _, effect in ipairs(effects) do
    if effect.revision > x.revision then
      apply_effect(plan, keys, id, x, effect)
    end
  end
  if newest.epoch >= x.epoch then
    plan_hold(plan, keys, id, x, is_nothing_held(x) and 'ended' or 'decided')
  else
    plan_write(plan, 'SET', keys.hold, cjson.encode(x))
  end
  return x
end

-- hold
-- KEYS  hold, undecided; then for each product of the lines and the effects ledger, history, changes
-- ARGV  reservation ID, epoch, fingerprint, lines as JSON, effects as JSON, product IDs in the order of KEYS as JSON
-- reply 'ok'; 'superseded'; 'absent', product IDs to adopt from plain keys; 'short', IDs of deleted products as JSON, and for each short line
--       product ID, requested, available, version
operations.hold = function(k, a, plan)
  local id, epoch, print, lines = a[1], tonumber(a[2]), a[3], cjson.decode(a[4])
  local keys, effects = hold_keys(k, cjson.decode(a[6])), cjson.decode(a[5])
  local x = load_hold(keys.hold)
  if #effects > 0 then
    x = apply_effects(plan, keys, id, x, effects)
  end
  if x and x.epoch == epoch and x.print == print then
    return { x.cancelled and 'superseded' or 'ok' }
  elseif x and x.epoch >= epoch then
    return { 'superseded' }
  end
  local absent, deleted, short = { 'absent' }, {}, {}
  for _, line in ipairs(lines) do
    local p, known = product_of(keys, line[1]), x and line_of(x.lines, line[1])
    if not p then
      absent[#absent + 1] = line[1]
    elseif is_deleted(p) then
      deleted[#deleted + 1] = line[1]
    else
      local left = math.max(0, on_hand(p) - (p.H - (known and known[2] or 0)) - p.F)
      if left < line[2] then
        short[#short + 1] = line[1]
        short[#short + 1] = line[2]
        short[#short + 1] = left
        short[#short + 1] = p.V
      end
    end
  end
  if #absent > 1 then
    return absent
  elseif #deleted > 0 or #short > 0 then
    return { 'short', cjson.encode(deleted), unpack(short) }
  end
  for _, line in ipairs(x and x.lines or {}) do
    if not line_of(lines, line[1]) then
      plan_units(plan, keys, line[1], 'released', id, -line[2], 0)
    end
  end
  local held = {}
  for i, line in ipairs(lines) do
    local known = x and line_of(x.lines, line[1])
    local delta = line[2] - (known and known[2] or 0)
    plan_units(plan, keys, line[1], delta < 0 and 'released' or 'reserved', id, delta, 0)
    held[i] = { line[1], line[2], 0 }
  end
  local taken = { epoch = epoch, print = print, revision = x and x.revision or -1, lines = held }
  plan_hold(plan, keys, id, taken, 'undecided')
  return { 'ok' }
end

-- cancel_hold
-- KEYS  hold, undecided
-- ARGV  reservation ID, epoch, fingerprint
-- reply 'ok'
operations.cancel_hold = function(k, a, plan)
  local keys, x = hold_keys(k, {}), load_hold(k[1])
  if x and x.epoch == tonumber(a[2]) and x.print == a[3] and not x.cancelled then
    for _, line in ipairs(x.lines) do
      plan_units(plan, keys, line[1], 'released', a[1], -line[2], 0)
      line[2] = 0
    end
    x.cancelled = true
    plan_hold(plan, keys, a[1], x, 'ended')
  end
  return { 'ok' }
end

-- apply_effects
-- KEYS  hold, undecided; then for each product ledger, history, changes
-- ARGV  reservation ID, effects as JSON, product IDs in the order of KEYS as JSON
-- reply 'ok'
operations.apply_effects = function(k, a, plan)
  local keys = hold_keys(k, cjson.decode(a[3]))
  apply_effects(plan, keys, a[1], load_hold(keys.hold), cjson.decode(a[2]))
  return { 'ok' }
end
