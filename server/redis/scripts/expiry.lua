-- Expires reservations that are due. A damaged record stops the expiry of its own reservation only.

-- Time between two attempts to expire a reservation that was set aside.
local damaged_retry_ms = 10000

-- Plans the removal of an entry from the set in which it was found.
local function remove_from(plan, source, id)
  plan_write(plan, 'ZREM', source, id)
end

-- Plans the expiry of one reservation, if it is due. Returns how many it expires. `source` is the set in which the
-- entry was found: the deadlines, or the reservations that were set aside.
local function plan_expiry(plan, keys, source, id)
  local reservation = { record = keys.records .. id, deadlines = keys.deadlines }
  local r = load_reservation(reservation.record)
  if not r then
    -- Its units remain reserved: the record that named them was deleted by hand.
    report_damage('deadline', source .. ' ' .. id, 'the reservation is missing; the deadline was removed')
    remove_from(plan, source, id)
    return 0
  elseif r.state ~= 'active' then
    remove_from(plan, source, id)
    return 0
  elseif r.expires > keys.latest then
    raise_damage('reservation', reservation.record, 'the deadline of the record is too late')
  elseif r.expires > now_ms then
    if source == keys.deadlines then
      report_damage('deadline', source .. ' ' .. id, 'it was not that of the record; it was corrected')
    else
      remove_from(plan, source, id)
    end
    plan_active(plan, reservation, id, r)
    return 0
  end
  return_held(plan, id, r, 'expired')
  plan_ended(plan, reservation, id, r, 'expired')
  if source ~= keys.deadlines then
    remove_from(plan, source, id)
  end
  return 1
end

local function expire(keys, source, id)
  local plan = new_plan()
  local expired = plan_expiry(plan, keys, source, id)
  run_plan(plan)
  return expired
end

local function set_aside(keys, source, id)
  local plan = new_plan()
  check_type('deadlines', 'ZCARD', keys.damaged)
  plan_write(plan, 'ZADD', keys.damaged, now_ms + damaged_retry_ms, id)
  if source == keys.deadlines then
    remove_from(plan, source, id)
  end
  run_plan(plan)
end

-- The members of a set with scores in a range. None if the key is damaged.
local function members(key, from, to, count)
  if count <= 0 then
    return {}
  end
  return attempt(read, 'deadlines', 'ZRANGE', key, from, to, 'BYSCORE', 'LIMIT', 0, count) or {}
end

-- expire_due
-- KEYS  deadlines of each bucket
-- ARGV  maximum number of reservations to expire, latest plausible deadline in ms from now
-- reply 'ok', number of expired reservations
operations.expire_due = function(k, a)
  local limit, latest, expired, tried = tonumber(a[1]), now_ms + tonumber(a[2]), 0, 0

  local function expire_all(keys, source, ids)
    for _, id in ipairs(ids) do
      local ran, result = pcall(expire, keys, source, id)
      if ran then
        expired = expired + result
      elseif is_damage(result) then
        report_damage(result.kind, result.key, result.reason)
        attempt(set_aside, keys, source, id)
      else
        error(result, 0)
      end
    end
    tried = tried + #ids
  end

  for _, deadlines in ipairs(k) do
    local tag = string.match(deadlines, '^{b%d+}')
    local keys = { deadlines = deadlines, damaged = tag .. ':damaged', records = tag .. ':r:', latest = latest }
    expire_all(keys, deadlines, members(deadlines, '-inf', now_ms, limit - tried))
    expire_all(keys, keys.damaged, members(keys.damaged, '-inf', now_ms, limit - tried))
    expire_all(keys, deadlines, members(deadlines, string.format('(%d', latest), '+inf', limit - tried))
  end
  return { 'ok', expired }
end
