-- The marker of a bucket: the data it belongs to, and the primary under which its writes are accepted.
--
-- Fields: data, the ID of the data; incarnation, raised by the first server that connects to another primary;
-- replid, the replication ID of the primary under which it was raised; beat, time of the latest batch that
-- changed no product and wrote this field so that WAIT has a write to wait for.
--
-- KEYS  the marker
-- ARGV  data ID, replication ID of the primary that this server is connected to, '1' if the marker must exist, else '0'
-- reply 'ok' and the incarnation; 'other' and the data ID that was found; 'empty' if there is no marker, and there must be one
local marker = redis.call('HMGET', KEYS[1], 'data', 'replid', 'incarnation')
local data, replication_id, incarnation = marker[1], marker[2], marker[3]
if data and data ~= ARGV[1] then
  return { 'other', data }
end
if not data and ARGV[3] == '1' then
  return { 'empty' }
end
if replication_id ~= ARGV[2] then
  -- One command, so that a failure cannot raise the incarnation without the rest.
  incarnation = string.format('%d', tonumber(incarnation or '0') + 1)
  redis.call('HSET', KEYS[1], 'incarnation', incarnation, 'data', ARGV[1], 'replid', ARGV[2])
end
return { 'ok', incarnation }
