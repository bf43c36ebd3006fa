-- Expires reservations that are due. A damaged record delays the expiry of its own reservation only.

-- Time until the next attempt to expire a reservation that needs a damaged record.
local damaged_retry_ms = 1000

-- Plans the expiry of one reservation, if it is due. Returns its lines, or nil if it expires nothing. `latest` is the latest
-- plausible deadline.
local function plan_expiry(plan, keys, id, latest)
  local r = load_reservation(keys.record)
  if not r then
    -- Its units remain reserved: the record that named them was deleted by hand.
    report_damage('deadline', keys.deadlines .. ' ' .. id, 'the reservation is missing; the deadline was removed')
    plan_write(plan, 'ZREM', keys.deadlines, id)
    return nil
  elseif r.state ~= 'active' then
    plan_write(plan, 'ZREM', keys.deadlines, id)
    return nil
  elseif r.expires > latest then
    raise_damage('reservation', keys.record, 'the deadline of the record is too late')
  elseif r.expires > now_ms then
    report_damage('deadline', keys.deadlines .. ' ' .. id, 'it was not that of the record; it was corrected')
    plan_write(plan, 'ZADD', keys.deadlines, r.expires, id)
    return nil
  end
  check_permission('SET', keys.record, '')
  return_held(plan, id, r, 'expired')
  plan_ended(plan, keys, id, r, 'expired')
  return r.lines
end

-- Expires one reservation by itself. If that needs a damaged record, moves the deadline: the reservation stays active, and
-- does not delay those that are due after it.
local function expire(keys, id, latest)
  local plan = new_plan()
  local ran, result = pcall(plan_expiry, plan, keys, id, latest)
  if not ran then
    if is_damage(result) then
      report_damage(result.kind, result.key, result.reason)
    elseif type(result) == 'string' and string.find(result, '^user_script') then
      -- An error of this script: the record has a fault that load_reservation does not know.
      report_damage('reservation', keys.record, result)
    else
      error(result, 0)
    end
    plan, result = new_plan(), nil
    plan_write(plan, 'ZADD', keys.deadlines, now_ms + damaged_retry_ms, id)
  end
  run_plan(plan)
  return result
end

-- The IDs with deadlines in a range. None if the key is damaged.
local function ids_between(deadlines, from, to, count)
  if count <= 0 then
    return {}
  end
  return attempt(read, 'deadlines', 'ZRANGE', deadlines, from, to, 'BYSCORE', 'LIMIT', 0, count) or {}
end

-- expire_due
-- KEYS  deadlines of each bucket
-- ARGV  maximum number of reservations to expire, latest plausible deadline in ms from now
-- reply 'ok', and for each expired reservation its ID and its lines as JSON
operations.expire_due = function(k, a)
  local limit, latest, expired, tried = tonumber(a[1]), now_ms + tonumber(a[2]), { 'ok' }, 0
  local too_late = string.format('(%d', latest)
  for _, deadlines in ipairs(k) do
    local records = string.match(deadlines, '^{b%d+}') .. ':r:'
    for _, range in ipairs({ { '-inf', now_ms }, { too_late, '+inf' } }) do
      local ids = ids_between(deadlines, range[1], range[2], limit - tried)
      for _, id in ipairs(ids) do
        local lines = expire({ deadlines = deadlines, record = records .. id }, id, latest)
        if lines then
          expired[#expired + 1] = id
          expired[#expired + 1] = cjson.encode(lines)
        end
      end
      tried = tried + #ids
    end
  end
  return expired
end
