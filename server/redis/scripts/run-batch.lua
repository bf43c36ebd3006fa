-- Runs the operations of one batch in order, each by itself: a refusal or error of one does not affect the
-- others. scripts.ts puts the other parts of the script before this one.

local function run(name, keys, arguments)
  local plan = new_plan()
  local reply = operations[name](keys, arguments, plan)
  run_plan(plan)
  return reply
end

local replies, first_key = {}, 1
local needs_replication, replies_without_state = false, { short = true, absent = true, unknown = true, missing = true }
for i, operation in ipairs(batch) do
  local name, key_count, arguments = unpack(operation)
  actor = operation[4]
  local keys = { unpack(KEYS, first_key, first_key + key_count - 1) }
  first_key = first_key + key_count
  local ran, reply = pcall(run, name, keys, arguments)
  if not ran then
    if is_damage(reply) then
      report_damage(reply.kind, reply.key, reply.reason)
      reply = { 'damaged', reply.kind, reply.key, reply.reason }
    else
      reply = { 'failed', is_error(reply) and reply.err or tostring(reply) }
    end
  end
  replies[i] = reply
  needs_replication = needs_replication or (name ~= 'expire_due' and not replies_without_state[reply[1]])
end
write_ledgers()
-- WAIT covers the writes of its own connection alone. A reply may depend on what another connection has just written, so a
-- batch without a change writes the field `beat`, for WAIT to wait for. The statuses in replies_without_state refuse the
-- operation, so a failover cannot invalidate them.
if ARGV[6] == '1' and needs_replication and #changed == 0 then
  redis.call('HSET', KEYS[#KEYS], 'beat', now_ms)
end
local entries = {}
for stream, entry in pairs(newest_entries) do
  for _, field in ipairs({ stream, unpack(entry) }) do
    entries[#entries + 1] = field
  end
end
replies[#replies + 1] = damage
replies[#replies + 1] = changed
replies[#replies + 1] = entries
return replies
