#!lua
-- The shebang makes Redis check before the script runs whether writes are possible. Without it, a replica (the
-- primary before a failover) would serve reads of stale data, and its READONLY error would appear in the reply of one
-- operation, where the connection does not see it.
--
-- The first part of the script: checks that the buckets are as the service expects them, and decodes the operations.
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

local batch = cjson.decode(ARGV[5])

-- The names of the operations. scripts.ts puts the functions of each kind of operations into a block, which runs only if
-- one of them is in the batch: creating all functions would cost more than most operations.
local in_batch = {}
for _, operation in ipairs(batch) do
  in_batch[operation[1]] = true
end
