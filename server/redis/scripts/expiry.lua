-- Expires reservations that are due. A damaged record delays the expiry of its own reservation only.

-- Time until the next attempt to expire a reservation that needs a damaged record.
local damaged_retry_ms = 1000

-- Plans the end of one reservation by `plan_end`, if it is due. Returns the reservation, or nil if it expires nothing. `latest` is
-- the latest plausible deadline.
local function plan_expiry(plan, keys, id, latest, plan_end)
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
  plan_end(plan, keys, id, r)
  return r
end

-- Expires one reservation by itself. If that needs a damaged record, moves the deadline: the reservation stays active, and
-- does not delay those that are due after it.
local function expire(keys, id, latest, plan_end)
  local plan = new_plan()
  local ran, result = pcall(plan_expiry, plan, keys, id, latest, plan_end)
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

-- Expires reservations of one bucket. Appends the ID and the reservation of each to `expired`, and returns how many it has tried.
local function expire_bucket(deadlines, limit, latest, plan_end, expired)
  local records, tried, too_late = string.match(deadlines, '^{b%d+}') .. ':r:', 0, string.format('(%d', latest)
  for _, range in ipairs({ { '-inf', now_ms }, { too_late, '+inf' } }) do
    local ids = ids_between(deadlines, range[1], range[2], limit - tried)
    for _, id in ipairs(ids) do
      local r = expire({ deadlines = deadlines, record = records .. id }, id, latest, plan_end)
      if r then
        expired[#expired + 1] = { id, r }
      end
    end
    tried = tried + #ids
  end
  return tried
end
