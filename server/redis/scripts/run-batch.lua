-- Runs the operations of one batch in order, each by itself: a refusal or error of one does not affect the
-- others. The other parts of the script are concatenated before this one.
--
-- KEYS  the keys of each operation, in order; the markers of the buckets that they belong to
-- ARGV  operation retention in ms, changes kept per bucket, changes kept per product, maximum
--       lead of an update's time in ms; the operations as JSON: for each its name, number of keys,
--       arguments and actor; '1' if replicas must acknowledge the batch, else '0'; for each marker the
--       data ID and incarnation that it must have
-- reply for each operation its reply, which starts with a status; then the damaged records that were found: kind, key
--       and reason, in turn; then the changed products: product ID and new version, alternating;
--       then for each change stream its key and its newest entry: ID, product ID, version.
--       Besides its own statuses, an operation replies 'damaged', kind, key and reason if a record that it needs is
--       damaged, and 'failed' and the error if it raised one. It has written nothing then, as far as the checks before
--       run_plan are complete (writes.lua).
--       The error FENCED if a marker has another data ID or incarnation: nothing ran
local marker_count = #ARGV - 6
for i = 1, marker_count do
  local marker = redis.call('HMGET', KEYS[#KEYS - marker_count + i], 'data', 'incarnation')
  local found = (marker[1] or '') .. ':' .. (marker[2] or '')
  if found ~= ARGV[6 + i] then
    return redis.error_reply('FENCED the bucket has ' .. found .. ', expected ' .. ARGV[6 + i])
  end
end

local function run(name, keys, arguments)
  local plan = new_plan()
  local reply = operations[name](keys, arguments, plan)
  run_plan(plan)
  return reply
end

local replies, first_key = {}, 1
local needs_replication, replies_without_state = false, { short = true, absent = true, unknown = true, missing = true }
for i, operation in ipairs(cjson.decode(ARGV[5])) do
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
