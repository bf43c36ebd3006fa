-- Holds on stock. The rules are those of memory/reservations.ts.
--
-- A reservation is a JSON string: state, lines as [product ID, bucket, quantity], print (of the
-- lines; absent where an unknown ID was released), created, expires and ended in ms, sold and left
-- line by line after a commit, revived. While it is active its ID stands in the deadlines of its
-- bucket; once it has ended the key leaves after the retention. Units come back through the
-- ledger alone, never by a key's going.
--
-- Commit, release, return and expiry learn which products they touch from the record itself, so
-- these keys are not in KEYS; a Cluster could not run them, and the service refuses one at start.

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

-- The ledger of a product that must be there. Raises where somebody took it away by hand: before the first
-- write of an operation, so that nothing is done by halves.
local function load_held(key)
  return load_product(key) or error('there is no ledger at ' .. key)
end

-- Gives all units back, but those of a product whose ledger somebody took away by hand: there is nothing
-- to give them back to, and the others must not wait for it.
local function give_back(id, r, cause)
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

-- Places of the lines of a reservation by product ID.
local function places_of(r)
  local places = {}
  for i, line in ipairs(r.lines) do
    places[line[1]] = i
  end
  return places
end

-- reserve
-- KEYS  reservation, deadlines; then for each line ledger, history, changes
-- ARGV  reservation ID, fingerprint of the lines, time to live in ms; then for each line product ID,
--       bucket, quantity
-- reply 'ok', the reservation; 'reused'; 'released_before'; 'absent', product IDs to look for plain
--       keys of; 'unknown', product ID; 'short', and for each short line product ID, requested, available
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
-- ARGV  reservation ID, 'strict' or ''; then for each line product ID, quantity; none means all
-- reply 'ok', the reservation; 'missing'; 'ended', state; 'reused'; 'too_large', place of the line,
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
  local sold, places = {}, places_of(r)
  for i, line in ipairs(r.lines) do
    sold[i] = #a == 2 and line[3] or 0
  end
  for i = 1, (#a - 2) / 2 do
    local quantity, place = tonumber(a[2 * i + 2]), places[a[2 * i + 1]]
    local held = place and r.lines[place][3] or 0
    if quantity > held then
      return { 'too_large', i - 1, held }
    end
    sold[place] = quantity
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
    local p = load_held(product_keys(line[1], line[2]).ledger)
    products[i] = p
    if is_expired then
      -- Where nobody has swept it up yet, the reservation's own hold does not stand against it.
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
    give_back(id, r, 'released')
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
-- reply 'ok', the reservation; 'missing'; 'reused'; 'ended', state; 'other', place of the line;
--       'too_large', place of the line, units left
operations.return_units = function(k, a)
  local keys = { record = k[1] }
  local r = load_reservation(keys.record)
  if not r then
    return { 'missing' }
  end
  local seen = seen_before(k[2], a[2])
  if seen == 'reused' then
    return { 'reused' }
  elseif seen == 'repeated' then
    return { 'ok', redis.call('GET', keys.record) }
  elseif r.state ~= 'committed' then
    return { 'ended', r.state }
  end
  local places, count = places_of(r), (#a - 2) / 2
  for i = 1, count do
    if not places[a[2 * i + 1]] then
      return { 'other', i - 1 }
    end
  end
  local products = {}
  for i = 1, count do
    local place = places[a[2 * i + 1]]
    local line, left = r.lines[place], r.left[place]
    if tonumber(a[2 * i + 2]) > left then
      return { 'too_large', i - 1, left }
    end
    products[i] = load_held(product_keys(line[1], line[2]).ledger)
  end
  redis.call('SET', k[2], a[2], 'PX', operation_retention_ms)
  for i = 1, count do
    local place, quantity, p = places[a[2 * i + 1]], tonumber(a[2 * i + 2]), products[i]
    local line = r.lines[place]
    local available_before = available(p)
    r.left[place] = r.left[place] - quantity
    p.S = p.S - quantity
    record(product_keys(line[1], line[2]), line[1], p, 'returned', available_before, a[1], '')
  end
  local text = cjson.encode(r)
  redis.call('SET', keys.record, text, 'PX', operation_retention_ms)
  return { 'ok', text }
end

-- expire_due
-- KEYS  deadlines of each bucket
-- ARGV  most reservations to expire
-- reply 'ok', how many expired
operations.expire_due = function(k, a)
  local limit, expired = tonumber(a[1]), 0
  for _, deadlines in ipairs(k) do
    if expired < limit then
      local due = redis.call('ZRANGEBYSCORE', deadlines, '-inf', now_ms, 'LIMIT', 0, limit - expired)
      for _, id in ipairs(due) do
        local keys = { deadlines = deadlines, record = string.gsub(deadlines, ':deadlines$', ':r:') .. id }
        local r = load_reservation(keys.record)
        if r and r.state == 'active' then
          give_back(id, r, 'expired')
          store_ended(keys, id, r, 'expired')
        else
          -- A record that somebody took away by hand must not stop the others.
          redis.call('ZREM', deadlines, id)
        end
        expired = expired + 1
      end
    end
  end
  return { 'ok', expired }
end
