-- Reservations on one primary. The rules are those of memory/reservations.ts.
--
-- Commit, release, return and expiry derive the keys of the products from the record, so these keys
-- are not in KEYS. A Cluster has the operations of decisions.lua and holds.lua instead.

-- The deadline is removed last: one that remains is removed by the next expiry.
local function plan_ended(plan, keys, id, r, state)
  local was_active = r.state == 'active'
  r.state = state
  r.ended = now_ms
  local text = cjson.encode(r)
  plan_write(plan, 'SET', keys.record, text, 'PX', operation_retention_ms)
  if was_active then
    check_type('deadlines', 'ZCARD', keys.deadlines)
    plan_write(plan, 'ZREM', keys.deadlines, id)
  end
  return { 'ok', text }
end

-- Plans the return of all held units to their products. Skips a product whose ledger was deleted by hand: there is no
-- count to return them to. A damaged ledger still has the units reserved, so the reservation waits for its repair.
local function return_held(plan, id, r, cause)
  for _, line in ipairs(r.lines) do
    local keys = product_keys(line[1], line[2])
    local p = load_product(keys.ledger)
    if not p then
      report_damage('ledger', keys.ledger, 'the key is missing')
    else
      local available_before = available(p)
      p.H = p.H - line[3]
      record(plan, keys, line[1], p, cause, available_before, id, '')
    end
  end
end

-- reserve
-- KEYS  reservation, deadlines; then for each line ledger, history, changes
-- ARGV  reservation ID, fingerprint of the lines, time to live in ms, the lines as JSON as in the record; then for each
--       line product ID, quantity
-- reply 'held', time in ms; 'ok', the reservation, for a repetition; 'reused'; 'released_before'; 'absent', product IDs to adopt
--       from plain keys; 'unknown', product ID; 'short', and for each short line product ID, requested, available,
--       version of the product
operations.reserve = function(k, a, plan)
  local keys = { record = k[1], deadlines = k[2] }
  local id = a[1]
  local known, text = load_reservation(keys.record)
  if known then
    if not known.print then
      return { 'released_before' }
    elseif known.print ~= a[2] then
      return { 'reused' }
    end
    return { 'ok', text }
  end
  local products, absent, short = {}, { 'absent' }, { 'short' }
  for i = 1, (#a - 4) / 2 do
    local product_id, quantity = a[2 * i + 3], tonumber(a[2 * i + 4])
    local p = load_product(k[3 * i])
    if p == nil then
      absent[#absent + 1] = product_id
    elseif is_deleted(p) then
      return #absent > 1 and absent or { 'unknown', product_id }
    elseif available(p) < quantity then
      short[#short + 1] = product_id
      short[#short + 1] = quantity
      short[#short + 1] = available(p)
      short[#short + 1] = p.V
    end
    products[i] = p
  end
  if #absent > 1 then
    return absent
  elseif #short > 1 then
    return short
  end
  for i, p in ipairs(products) do
    local available_before = available(p)
    p.H = p.H + tonumber(a[2 * i + 4])
    local line_keys = { ledger = k[3 * i], history = k[3 * i + 1], changes = k[3 * i + 2] }
    record(plan, line_keys, a[2 * i + 3], p, 'reserved', available_before, id, '')
  end
  -- Written by hand: encoding a table costs more than a change of the ledger.
  local expires = now_ms + tonumber(a[3])
  plan_active(plan, keys, id, expires, string.format(
    '{"state":"active","lines":%s,"print":"%s","created":%d,"expires":%d}', a[4], a[2], now_ms, expires))
  return { 'held', now_ms }
end

-- commit_reservation
-- KEYS  reservation, deadlines
-- ARGV  reservation ID, 'strict' or ''; then for each line product ID, quantity; no lines: all units held
-- reply 'ok', the reservation; 'missing'; 'ended', state; 'reused'; 'too_large', index of the line,
--       units held; 'short' as in reserve
operations.commit_reservation = function(k, a, plan)
  local keys = { record = k[1], deadlines = k[2] }
  local id, strict = a[1], a[2] == 'strict'
  local r, text = load_reservation(keys.record)
  if not r then
    return { 'missing' }
  elseif r.state == 'released' then
    return { 'ended', 'released' }
  end
  local sold, too_large = units_to_sell(r, a)
  if too_large then
    return too_large
  elseif r.state == 'committed' then
    return is_sold(r, sold) and { 'ok', text } or { 'reused' }
  end

  local is_held = r.state == 'active'
  local is_expired = not is_held or is_due(r)
  if is_expired and strict then
    return { 'ended', 'expired' }
  end
  local short, products, line_keys = { 'short' }, {}, {}
  for i, line in ipairs(r.lines) do
    line_keys[i] = product_keys(line[1], line[2])
    local p = require_product(line_keys[i].ledger)
    products[i] = p
    if not is_held then
      local left = is_deleted(p) and 0 or available(p)
      if left < sold[i] then
        short[#short + 1] = line[1]
        short[#short + 1] = sold[i]
        short[#short + 1] = left
        short[#short + 1] = p.V
      end
    end
  end
  if #short > 1 then
    return short
  end
  for i, line in ipairs(r.lines) do
    local p, available_before = products[i], available(products[i])
    if not is_held and sold[i] > 0 then
      p.H = p.H + sold[i]
      record(plan, line_keys[i], line[1], p, 'reserved', available_before, id, '')
      available_before = available(p)
    end
    local held = is_held and line[3] or sold[i]
    if held > 0 then
      p.H = p.H - held
      p.S = p.S + sold[i]
      local cause = sold[i] > 0 and 'committed' or 'released'
      record(plan, line_keys[i], line[1], p, cause, available_before, id, '')
    end
  end
  r.sold = sold
  r.left = sold
  r.revived = is_expired or nil
  return plan_ended(plan, keys, id, r, 'committed')
end

-- release_reservation
-- KEYS  reservation, deadlines
-- ARGV  reservation ID
-- reply 'ok', the reservation; 'ended', state
operations.release_reservation = function(k, a, plan)
  local keys = { record = k[1], deadlines = k[2] }
  local id = a[1]
  local r, text = load_reservation(keys.record)
  r = r or { state = 'unknown', created = now_ms }
  if r.state == 'committed' then
    return { 'ended', 'committed' }
  elseif r.state == 'released' then
    return { 'ok', text }
  elseif r.state == 'active' then
    return_held(plan, id, r, 'released')
  end
  return plan_ended(plan, keys, id, r, 'released')
end

-- extend_reservation
-- KEYS  reservation, deadlines
-- ARGV  reservation ID, time to live in ms
-- reply 'ok', the reservation; 'missing'; 'ended', state
operations.extend_reservation = function(k, a, plan)
  local keys = { record = k[1], deadlines = k[2] }
  local r = load_reservation(keys.record)
  return plan_extension(plan, keys, a[1], r, a[2])
end

-- return_units
-- KEYS  reservation, operation, reference
-- ARGV  return ID, fingerprint; then for each line product ID, quantity
-- reply 'ok', the reservation; 'missing'; 'reused'; 'ended', state; 'other', index of the line;
--       'too_large', index of the line, units left; 'range', index of the line, units on hand
operations.return_units = function(k, a, plan)
  local keys = { record = k[1] }
  local r, text = load_reservation(keys.record)
  if not r then
    return { 'missing' }
  end
  local seen = operation_status(k[2], a[2])
  if seen == 'reused' then
    return { 'reused' }
  elseif seen == 'repeated' then
    return { 'ok', text }
  elseif r.state ~= 'committed' then
    return { 'ended', r.state }
  end
  local indexes, count = line_indexes(r), (#a - 2) / 2
  for i = 1, count do
    if not indexes[a[2 * i + 1]] then
      return { 'other', i - 1 }
    end
  end
  local products, line_keys = {}, {}
  for i = 1, count do
    local index = indexes[a[2 * i + 1]]
    local line, left = r.lines[index], r.left[index]
    if tonumber(a[2 * i + 2]) > left then
      return { 'too_large', i - 1, left }
    end
    line_keys[i] = product_keys(line[1], line[2])
    products[i] = require_product(line_keys[i].ledger)
    if on_hand(products[i]) + tonumber(a[2 * i + 2]) > quantity_max then
      return { 'range', i - 1, on_hand(products[i]) }
    end
  end
  local changes = {}
  for i = 1, count do
    local index, quantity, p = indexes[a[2 * i + 1]], tonumber(a[2 * i + 2]), products[i]
    local line = r.lines[index]
    local available_before = available(p)
    r.left[index] = r.left[index] - quantity
    p.S = p.S - quantity
    record(plan, line_keys[i], line[1], p, 'returned', available_before, a[1], '')
    changes[i] = { line[1], p.V }
  end
  name_return(r, a[1])
  text = cjson.encode(r)
  plan_write(plan, 'SET', keys.record, text, 'PX', operation_retention_ms)
  plan_write(plan, 'SET', k[2], a[2], 'PX', operation_retention_ms)
  plan_reference(plan, k[3], changes)
  return { 'ok', text }
end

local function plan_expired(plan, keys, id, r)
  return_held(plan, id, r, 'expired')
  plan_ended(plan, keys, id, r, 'expired')
end

-- expire_due
-- KEYS  deadlines of each bucket
-- ARGV  maximum number of reservations to expire, latest plausible deadline in ms from now
-- reply 'ok', and for each expired reservation its ID and its lines as JSON
operations.expire_due = function(k, a)
  local limit, latest, expired, tried = tonumber(a[1]), now_ms + tonumber(a[2]), {}, 0
  for _, deadlines in ipairs(k) do
    tried = tried + expire_bucket(deadlines, limit - tried, latest, plan_expired, expired)
  end
  local reply = { 'ok' }
  for _, each in ipairs(expired) do
    reply[#reply + 1] = each[1]
    reply[#reply + 1] = cjson.encode(each[2].lines)
  end
  return reply
end
