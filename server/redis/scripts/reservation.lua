-- Reservations. The rules are those of memory/reservations.ts.
--
-- A reservation is a JSON string: state, lines as [product ID, bucket, quantity], print (fingerprint of
-- the lines; absent if an unknown ID was released), created, expires and ended in ms, sold and left
-- line by line after a commit, revived. While it is active, its ID is in the deadlines of its bucket.
-- After it has ended, the key expires after the retention. Units are returned by the ledger's
-- operations only, never by the expiry of a key.
--
-- Commit, release, return and expiry derive the keys of the products from the record, so these keys
-- are not in KEYS. A Redis Cluster could not run them; the service refuses one at start.

local function product_keys(product_id, bucket)
  local tag = string.format('{b%02d}', bucket)
  return { ledger = tag .. ':p:' .. product_id, history = tag .. ':h:' .. product_id, changes = tag .. ':changes' }
end

local function load_reservation(key)
  local text = redis.call('GET', key)
  return text and cjson.decode(text)
end

local function store_active(keys, id, r)
  redis.call('ZADD', keys.deadlines, r.expires, id)
  local text = cjson.encode(r)
  redis.call('SET', keys.record, text)
  return { 'ok', text }
end

local function store_ended(keys, id, r, state)
  if r.state == 'active' then
    redis.call('ZREM', keys.deadlines, id)
  end
  r.state = state
  r.ended = now_ms
  local text = cjson.encode(r)
  redis.call('SET', keys.record, text, 'PX', operation_retention_ms)
  return { 'ok', text }
end

local function is_due(r)
  return r.state == 'active' and r.expires <= now_ms
end

-- Reads a ledger that must exist. Raises if it was deleted by hand; call it before the first write of an
-- operation, so that the operation is not left half done.
local function require_product(key)
  return load_product(key) or error('there is no ledger at ' .. key)
end

-- Returns all held units to their products. Skips a product whose ledger was deleted by hand: there is no
-- ledger to return them to, and the other lines must not wait for it.
local function return_held(id, r, cause)
  local products = {}
  for i, line in ipairs(r.lines) do
    products[i] = load_product(product_keys(line[1], line[2]).ledger)
  end
  for i, line in ipairs(r.lines) do
    local p = products[i]
    if p then
      local available_before = available(p)
      p.H = p.H - line[3]
      record(product_keys(line[1], line[2]), line[1], p, cause, available_before, id, '')
    end
  end
end

-- Indexes of the lines of a reservation by product ID.
local function line_indexes(r)
  local indexes = {}
  for i, line in ipairs(r.lines) do
    indexes[line[1]] = i
  end
  return indexes
end

-- reserve
-- KEYS  reservation, deadlines; then for each line ledger, history, changes
-- ARGV  reservation ID, fingerprint of the lines, time to live in ms; then for each line product ID,
--       bucket, quantity
-- reply 'ok', the reservation; 'reused'; 'released_before'; 'absent', product IDs to adopt
--       from plain keys; 'unknown', product ID; 'short', and for each short line product ID, requested, available
operations.reserve = function(k, a)
  local keys = { record = k[1], deadlines = k[2] }
  local id = a[1]
  local text = redis.call('GET', keys.record)
  if text then
    local known = cjson.decode(text)
    if not known.print then
      return { 'released_before' }
    elseif known.print ~= a[2] then
      return { 'reused' }
    end
    return { 'ok', text }
  end
  local lines, products, absent, short = {}, {}, { 'absent' }, { 'short' }
  for i = 1, (#a - 3) / 3 do
    local product_id, bucket, quantity = a[3 * i + 1], tonumber(a[3 * i + 2]), tonumber(a[3 * i + 3])
    local p = load_product(k[3 * i])
    if p == nil then
      absent[#absent + 1] = product_id
    elseif is_deleted(p) then
      return #absent > 1 and absent or { 'unknown', product_id }
    elseif available(p) < quantity then
      short[#short + 1] = product_id
      short[#short + 1] = quantity
      short[#short + 1] = available(p)
    end
    lines[i] = { product_id, bucket, quantity }
    products[i] = p
  end
  if #absent > 1 then
    return absent
  elseif #short > 1 then
    return short
  end
  for i, line in ipairs(lines) do
    local p = products[i]
    local available_before = available(p)
    p.H = p.H + line[3]
    local line_keys = { ledger = k[3 * i], history = k[3 * i + 1], changes = k[3 * i + 2] }
    record(line_keys, line[1], p, 'reserved', available_before, id, '')
  end
  return store_active(keys, id, {
    state = 'active', lines = lines, print = a[2], created = now_ms, expires = now_ms + tonumber(a[3]),
  })
end

-- commit_reservation
-- KEYS  reservation, deadlines
-- ARGV  reservation ID, 'strict' or ''; then for each line product ID, quantity; no lines: all units held
-- reply 'ok', the reservation; 'missing'; 'ended', state; 'reused'; 'too_large', index of the line,
--       units held; 'short' as in reserve
operations.commit_reservation = function(k, a)
  local keys = { record = k[1], deadlines = k[2] }
  local id, strict = a[1], a[2] == 'strict'
  local r = load_reservation(keys.record)
  if not r then
    return { 'missing' }
  elseif r.state == 'released' then
    return { 'ended', 'released' }
  end
  local sold, indexes = {}, line_indexes(r)
  for i, line in ipairs(r.lines) do
    sold[i] = #a == 2 and line[3] or 0
  end
  for i = 1, (#a - 2) / 2 do
    local quantity, index = tonumber(a[2 * i + 2]), indexes[a[2 * i + 1]]
    local held = index and r.lines[index][3] or 0
    if quantity > held then
      return { 'too_large', i - 1, held }
    end
    sold[index] = quantity
  end
  if r.state == 'committed' then
    for i, quantity in ipairs(sold) do
      if quantity ~= r.sold[i] then
        return { 'reused' }
      end
    end
    return { 'ok', redis.call('GET', keys.record) }
  end

  local is_held = r.state == 'active'
  local is_expired = not is_held or is_due(r)
  if is_expired and strict then
    return { 'ended', 'expired' }
  end
  local short, products = { 'short' }, {}
  for i, line in ipairs(r.lines) do
    local p = require_product(product_keys(line[1], line[2]).ledger)
    products[i] = p
    if is_expired then
      -- If it is overdue but not expired yet, its own units are available to it.
      local own = is_held and line[3] or 0
      local left = is_deleted(p) and 0 or math.max(0, on_hand(p) - (p.H - own) - p.F)
      if left < sold[i] then
        short[#short + 1] = line[1]
        short[#short + 1] = sold[i]
        short[#short + 1] = left
      end
    end
  end
  if #short > 1 then
    return short
  end
  for i, line in ipairs(r.lines) do
    local held = is_held and line[3] or 0
    if held > 0 or sold[i] > 0 then
      local p = products[i]
      local available_before = available(p)
      p.H = p.H - held
      p.S = p.S + sold[i]
      local cause = sold[i] > 0 and 'committed' or 'released'
      record(product_keys(line[1], line[2]), line[1], p, cause, available_before, id, '')
    end
  end
  r.sold = sold
  r.left = sold
  r.revived = is_expired or nil
  return store_ended(keys, id, r, 'committed')
end

-- release_reservation
-- KEYS  reservation, deadlines
-- ARGV  reservation ID
-- reply 'ok', the reservation; 'ended', state
operations.release_reservation = function(k, a)
  local keys = { record = k[1], deadlines = k[2] }
  local id = a[1]
  local r = load_reservation(keys.record) or { state = 'unknown', created = now_ms }
  if r.state == 'committed' then
    return { 'ended', 'committed' }
  elseif r.state == 'released' then
    return { 'ok', redis.call('GET', keys.record) }
  elseif r.state == 'active' then
    return_held(id, r, 'released')
  end
  return store_ended(keys, id, r, 'released')
end

-- extend_reservation
-- KEYS  reservation, deadlines
-- ARGV  reservation ID, time to live in ms
-- reply 'ok', the reservation; 'missing'; 'ended', state
operations.extend_reservation = function(k, a)
  local keys = { record = k[1], deadlines = k[2] }
  local r = load_reservation(keys.record)
  if not r then
    return { 'missing' }
  elseif r.state ~= 'active' or is_due(r) then
    return { 'ended', r.state == 'active' and 'expired' or r.state }
  end
  r.expires = now_ms + tonumber(a[2])
  return store_active(keys, a[1], r)
end

-- return_units
-- KEYS  reservation, operation
-- ARGV  return ID, fingerprint; then for each line product ID, quantity
-- reply 'ok', the reservation; 'missing'; 'reused'; 'ended', state; 'other', index of the line;
--       'too_large', index of the line, units left
operations.return_units = function(k, a)
  local keys = { record = k[1] }
  local r = load_reservation(keys.record)
  if not r then
    return { 'missing' }
  end
  local seen = operation_status(k[2], a[2])
  if seen == 'reused' then
    return { 'reused' }
  elseif seen == 'repeated' then
    return { 'ok', redis.call('GET', keys.record) }
  elseif r.state ~= 'committed' then
    return { 'ended', r.state }
  end
  local indexes, count = line_indexes(r), (#a - 2) / 2
  for i = 1, count do
    if not indexes[a[2 * i + 1]] then
      return { 'other', i - 1 }
    end
  end
  local products = {}
  for i = 1, count do
    local index = indexes[a[2 * i + 1]]
    local line, left = r.lines[index], r.left[index]
    if tonumber(a[2 * i + 2]) > left then
      return { 'too_large', i - 1, left }
    end
    products[i] = require_product(product_keys(line[1], line[2]).ledger)
  end
  redis.call('SET', k[2], a[2], 'PX', operation_retention_ms)
  for i = 1, count do
    local index, quantity, p = indexes[a[2 * i + 1]], tonumber(a[2 * i + 2]), products[i]
    local line = r.lines[index]
    local available_before = available(p)
    r.left[index] = r.left[index] - quantity
    p.S = p.S - quantity
    record(product_keys(line[1], line[2]), line[1], p, 'returned', available_before, a[1], '')
  end
  local text = cjson.encode(r)
  redis.call('SET', keys.record, text, 'PX', operation_retention_ms)
  return { 'ok', text }
end

-- expire_due
-- KEYS  deadlines of each bucket
-- ARGV  maximum number of reservations to expire
-- reply 'ok', number of expired reservations
operations.expire_due = function(k, a)
  local limit, expired = tonumber(a[1]), 0
  for _, deadlines in ipairs(k) do
    if expired < limit then
      local due = redis.call('ZRANGEBYSCORE', deadlines, '-inf', now_ms, 'LIMIT', 0, limit - expired)
      for _, id in ipairs(due) do
        local keys = { deadlines = deadlines, record = string.gsub(deadlines, ':deadlines$', ':r:') .. id }
        local r = load_reservation(keys.record)
        if r and r.state == 'active' then
          return_held(id, r, 'expired')
          store_ended(keys, id, r, 'expired')
        else
          -- The record was deleted by hand, or the reservation has ended: the deadline is obsolete.
          redis.call('ZREM', deadlines, id)
        end
        expired = expired + 1
      end
    end
  end
  return { 'ok', expired }
end
