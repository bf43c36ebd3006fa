-- What a server has left undone in a bucket of a Cluster.

-- The members of a sorted set that are overdue. Takes them: they are due again after the same time, so that one server at a
-- time works on each.
local function take_overdue(plan, kind, set, overdue_ms, limit)
  local ids = read(kind, 'ZRANGE', set, '-inf', now_ms - overdue_ms, 'BYSCORE', 'LIMIT', 0, limit)
  for _, id in ipairs(ids) do
    plan_write(plan, 'ZADD', set, 'XX', now_ms, id)
  end
  return ids
end

-- take_undecided
-- KEYS  undecided
-- ARGV  age in ms from which a hold is overdue, maximum number
-- reply 'ok', and for each overdue hold reservation ID, epoch, fingerprint
operations.take_undecided = function(k, a, plan)
  local reply, prefix = { 'ok' }, string.match(k[1], '^{b%d+}') .. ':x:'
  for _, id in ipairs(take_overdue(plan, 'undecided', k[1], tonumber(a[1]), tonumber(a[2]))) do
    local x = attempt(load_hold, prefix .. id)
    if x then
      for _, field in ipairs({ id, x.epoch, x.print }) do
        reply[#reply + 1] = field
      end
    elseif x == nil and redis.call('EXISTS', prefix .. id) == 0 then
      plan_write(plan, 'ZREM', k[1], id)
    end
  end
  return reply
end

-- take_owed
-- KEYS  owed
-- ARGV  age in ms from which an effect is overdue, maximum number
-- reply 'ok', and the reservation IDs
operations.take_owed = function(k, a, plan)
  return { 'ok', unpack(take_overdue(plan, 'owed', k[1], tonumber(a[1]), tonumber(a[2]))) }
end
