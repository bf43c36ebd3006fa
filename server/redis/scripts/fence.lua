-- The marker of a bucket: the data it belongs to, and the primary under which its writes are accepted.
--
-- Fields: data, the ID of the data; incarnation, raised by the first server that connects to another primary;
-- replid, the replication ID of the primary under which it was raised; beat, time of the latest batch that
-- changed no product and wrote this field so that WAIT has a write to wait for.
--
-- KEYS  the markers of all buckets
-- ARGV  data ID, replication ID of the primary that this server is connected to
-- reply 'ok', and for each bucket its incarnation; or 'other', and the data ID that was found
local incarnations = {}
for i, key in ipairs(KEYS) do
  local data = redis.call('HGET', key, 'data')
  if data and data ~= ARGV[1] then
    return { 'other', data }
  end
end
for i, key in ipairs(KEYS) do
  if redis.call('HGET', key, 'replid') ~= ARGV[2] then
    -- One command, so that a failure cannot raise the incarnation without the rest.
    local incarnation = tonumber(redis.call('HGET', key, 'incarnation') or '0') + 1
    redis.call('HSET', key, 'incarnation', string.format('%d', incarnation), 'data', ARGV[1], 'replid', ARGV[2])
  end
  incarnations[i] = redis.call('HGET', key, 'incarnation')
end
return { 'ok', unpack(incarnations) }
