-- Reservations in a Cluster: the steps of the home bucket of a reservation, which decides alone. The rules are those of
-- memory/decisions.ts.
--
-- The record is that of reservation-record.lua with these fields: epoch and attempt (fingerprint) of the attempt that was
-- decided last, refused (attempts up to this epoch can no longer be decided; absent: 0), revision (number of decisions
-- that change ledgers), effects (of decisions that some bucket may not have applied yet, oldest first; absent: none). A
-- reservation with effects is in `owed`, by the time of the newest, and its record does not expire. If there is only a
-- refused attempt, the record is the string 'refused <epoch>'.

-- Returns the record or nil, its text, and the highest refused epoch.
local function load_decision(key)
  local text = read('reservation', 'GET', key)
  local refused = text and string.match(text, '^refused (%d+)$')
  if not text or refused then
    return nil, nil, tonumber(refused or '0')
  end
  local r = decode_record('reservation', key, text, is_reservation)
  if not is_integer(r.epoch) or not is_integer(r.revision) or (r.lines and type(r.attempt) ~= 'string') then
    raise_damage('reservation', key, 'the record has missing or invalid fields')
  end
  return r, text, r.refused or 0
end

local function next_epoch(r, refused)
  return math.max(refused, r and r.epoch or 0) + 1
end

-- The state of a reservation as an effect.
local function effect_of(r, cause, reference, by)
  local targets = {}
  for i, line in ipairs(r.lines) do
    targets[i] = { line[1], r.state == 'active' and line[3] or 0, r.state == 'committed' and r.left[i] or 0 }
  end
  return {
    revision = r.revision, epoch = r.epoch, cause = cause, reference = reference, actor = by, targets = targets,
  }
end

-- Plans a record with all that belongs to its state. `keys` has record, deadlines and owed, as far as they can change.
local function plan_record(plan, keys, r)
  local text = cjson.encode(r)
  if r.state == 'active' or r.effects then
    plan_write(plan, 'SET', keys.record, text)
  else
    plan_write(plan, 'SET', keys.record, text, 'PX', operation_retention_ms)
  end
  return { 'ok', text }
end

-- Plans a decision that changes ledgers: its effect is owed.
local function plan_owed(plan, keys, id, r, cause, reference)
  r.revision = r.revision + 1
  r.effects = r.effects or {}
  r.effects[#r.effects + 1] = effect_of(r, cause, reference, actor)
  check_type('owed', 'ZCARD', keys.owed)
  plan_write(plan, 'ZADD', keys.owed, now_ms, id)
  return plan_record(plan, keys, r)
end

-- Plans the end of an active or expired reservation. The deadline is removed last: one that remains is removed by the next expiry.
local function plan_end(plan, keys, id, r, state)
  local was_active = r.state == 'active'
  r.state = state
  r.ended = now_ms
  local reply = plan_owed(plan, keys, id, r, state, id)
  if was_active then
    check_type('deadlines', 'ZCARD', keys.deadlines)
    plan_write(plan, 'ZREM', keys.deadlines, id)
  end
  return reply
end

local function plan_sale(plan, keys, id, r, sold, revived)
  r.sold = sold
  r.left = { unpack(sold) }
  r.revived = revived or nil
  return plan_end(plan, keys, id, r, 'committed')
end

-- read_reservation
-- KEYS  record
-- reply 'ok', the record; 'absent', next epoch
operations.read_reservation = function(k)
  local r, text, refused = load_decision(k[1])
  return r and { 'ok', text } or { 'absent', next_epoch(r, refused) }
end

-- decide
-- KEYS  record, deadlines
-- ARGV  reservation ID, epoch, fingerprint, time to live in ms; then for each line product ID, bucket, quantity
-- reply 'ok', the record; 'reused'; 'released_before'; 'refused', next epoch
operations.decide = function(k, a, plan)
  local keys, epoch = { record = k[1], deadlines = k[2] }, tonumber(a[2])
  local r, text, refused = load_decision(keys.record)
  if r then
    if not r.print then
      return { 'released_before' }
    end
    return r.print == a[3] and { 'ok', text } or { 'reused' }
  elseif epoch ~= refused + 1 then
    return { 'refused', next_epoch(r, refused) }
  end
  local lines = {}
  for i = 1, (#a - 4) / 3 do
    lines[i] = { a[3 * i + 2], tonumber(a[3 * i + 3]), tonumber(a[3 * i + 4]) }
  end
  local expires = now_ms + tonumber(a[4])
  text = cjson.encode({
    state = 'active', lines = lines, print = a[3], created = now_ms, expires = expires,
    epoch = epoch, attempt = a[3], revision = 0, refused = refused > 0 and refused or nil,
  })
  plan_active(plan, keys, a[1], expires, text)
  return { 'ok', text }
end

-- refuse
-- KEYS  record
-- ARGV  epoch, reservation ID
-- reply 'refused', next epoch; 'decided', fingerprint of the attempt, effects as JSON
operations.refuse = function(k, a, plan)
  local keys, epoch = { record = k[1] }, tonumber(a[1])
  local r, _, refused = load_decision(keys.record)
  if r and r.attempt and r.epoch == epoch then
    local cause = r.state == 'active' and 'reserved' or r.state
    return { 'decided', r.attempt, cjson.encode(r.effects or { effect_of(r, cause, a[2], '') }) }
  elseif epoch > refused then
    refused = epoch
    if r then
      r.refused = refused
      plan_record(plan, keys, r)
    else
      plan_write(plan, 'SET', keys.record, string.format('refused %d', refused), 'PX', operation_retention_ms)
    end
  end
  return { 'refused', next_epoch(r, refused) }
end

-- commit
-- KEYS  record, deadlines, owed
-- ARGV  reservation ID, 'strict' or ''; then for each line product ID, quantity; no lines: all units held
-- reply 'ok', the record; 'missing'; 'ended', state; 'reused'; 'too_large', index of the line, units held; 'expired',
--       next epoch, the record, and for each line to be held again product ID, quantity
operations.commit = function(k, a, plan)
  local keys = { record = k[1], deadlines = k[2], owed = k[3] }
  local r, text, refused = load_decision(keys.record)
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
  local is_expired = r.state == 'expired' or is_due(r)
  if is_expired and a[2] == 'strict' then
    return { 'ended', 'expired' }
  elseif r.state == 'expired' then
    local reply = { 'expired', next_epoch(r, refused), text }
    for i, quantity in ipairs(sold) do
      if quantity > 0 then
        reply[#reply + 1] = r.lines[i][1]
        reply[#reply + 1] = quantity
      end
    end
    return reply
  end
  -- A reservation that is due still holds its units until it is swept.
  return plan_sale(plan, keys, a[1], r, sold, is_expired)
end

-- revive
-- KEYS  record, deadlines, owed
-- ARGV  reservation ID, epoch, fingerprint; then for each line product ID, quantity
-- reply 'ok', the record; 'refused', next epoch
operations.revive = function(k, a, plan)
  local keys, epoch = { record = k[1], deadlines = k[2], owed = k[3] }, tonumber(a[2])
  local r, text, refused = load_decision(keys.record)
  if r and r.state == 'committed' and r.epoch == epoch and r.attempt == a[3] then
    return { 'ok', text }
  end
  if not r or r.state ~= 'expired' or epoch ~= next_epoch(r, refused) then
    return { 'refused', next_epoch(r, refused) }
  end
  local indexes, sold = line_indexes(r), {}
  for i = 1, #r.lines do
    sold[i] = 0
  end
  for i = 1, (#a - 3) / 2 do
    sold[indexes[a[2 * i + 2]]] = tonumber(a[2 * i + 3])
  end
  r.epoch = epoch
  r.attempt = a[3]
  return plan_sale(plan, keys, a[1], r, sold, true)
end

-- release
-- KEYS  record, deadlines, owed
-- ARGV  reservation ID
-- reply 'ok', the record; 'ended', state
operations.release = function(k, a, plan)
  local keys = { record = k[1], deadlines = k[2], owed = k[3] }
  local r, text, refused = load_decision(keys.record)
  if not r then
    return plan_record(plan, keys, {
      state = 'released', created = now_ms, ended = now_ms, epoch = 0, revision = 0,
      refused = refused > 0 and refused or nil,
    })
  elseif r.state == 'committed' then
    return { 'ended', 'committed' }
  elseif r.state == 'released' then
    return { 'ok', text }
  elseif r.state == 'active' then
    return plan_end(plan, keys, a[1], r, 'released')
  end
  -- Its units are already returned. The release prevents a late commit from reviving it.
  r.state = 'released'
  r.ended = now_ms
  return plan_record(plan, keys, r)
end

-- extend
-- KEYS  record, deadlines
-- ARGV  reservation ID, time to live in ms
-- reply 'ok', the record; 'missing'; 'ended', state
operations.extend = function(k, a, plan)
  local keys = { record = k[1], deadlines = k[2] }
  return plan_extension(plan, keys, a[1], (load_decision(keys.record)), a[2])
end

-- return
-- KEYS  record, owed, operation
-- ARGV  reservation ID, return ID, fingerprint; then for each line product ID, quantity, units on hand as last read
-- reply 'ok', the record; 'missing'; 'reused'; 'ended', state; 'other', product ID; 'too_large', product ID, units left;
--       'range', product ID, units on hand
operations['return'] = function(k, a, plan)
  local keys = { record = k[1], owed = k[2] }
  local r, text = load_decision(keys.record)
  if not r then
    return { 'missing' }
  end
  local seen = operation_status(k[3], a[3])
  if seen == 'reused' then
    return { 'reused' }
  elseif seen == 'repeated' then
    return { 'ok', text }
  elseif r.state ~= 'committed' then
    return { 'ended', r.state }
  end
  local indexes, count = line_indexes(r), (#a - 3) / 3
  for i = 1, count do
    if not indexes[a[3 * i + 1]] then
      return { 'other', a[3 * i + 1] }
    end
  end
  for i = 1, count do
    local quantity, left = tonumber(a[3 * i + 2]), r.left[indexes[a[3 * i + 1]]]
    if quantity > left then
      return { 'too_large', a[3 * i + 1], left }
    elseif tonumber(a[3 * i + 3]) + quantity > quantity_max then
      return { 'range', a[3 * i + 1], tonumber(a[3 * i + 3]) }
    end
  end
  for i = 1, count do
    local index = indexes[a[3 * i + 1]]
    r.left[index] = r.left[index] - tonumber(a[3 * i + 2])
  end
  name_return(r, a[2])
  plan_write(plan, 'SET', k[3], a[3], 'PX', operation_retention_ms)
  return plan_owed(plan, keys, a[1], r, 'returned', a[2])
end

-- settle
-- KEYS  record, owed
-- ARGV  reservation ID, revision
-- reply 'ok'
operations.settle = function(k, a, plan)
  local keys, revision = { record = k[1], owed = k[2] }, tonumber(a[2])
  local r = load_decision(keys.record)
  if not r then
    plan_write(plan, 'ZREM', keys.owed, a[1])
    return { 'ok' }
  end
  local effects = {}
  for _, effect in ipairs(r.effects or {}) do
    if effect.revision > revision then
      effects[#effects + 1] = effect
    end
  end
  r.effects = #effects > 0 and effects or nil
  if not r.effects then
    check_type('owed', 'ZCARD', keys.owed)
    plan_write(plan, 'ZREM', keys.owed, a[1])
  end
  plan_record(plan, keys, r)
  return { 'ok' }
end

-- expire_home
-- KEYS  deadlines, owed
-- ARGV  maximum number of reservations to expire, latest plausible deadline in ms from now
-- reply 'ok', and for each expired reservation its ID and its record
operations.expire_home = function(k, a)
  local expired, reply = {}, { 'ok' }
  expire_bucket(k[1], tonumber(a[1]), now_ms + tonumber(a[2]), function(plan, keys, id, r)
    plan_end(plan, { record = keys.record, deadlines = keys.deadlines, owed = k[2] }, id, r, 'expired')
  end, expired)
  for _, each in ipairs(expired) do
    reply[#reply + 1] = each[1]
    reply[#reply + 1] = cjson.encode(each[2])
  end
  return reply
end
