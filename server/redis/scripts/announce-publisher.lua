-- Announces a publisher for a time, or withdraws it, and counts the announced publishers.
--
-- KEYS  publishers
-- ARGV  owner, lifetime of the announcement in ms; 0 withdraws it
-- reply number of publishers
local clock = redis.call('TIME')
local now_ms = clock[1] * 1000 + math.floor(clock[2] / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now_ms)
if tonumber(ARGV[2]) > 0 then
  redis.call('ZADD', KEYS[1], now_ms + tonumber(ARGV[2]), ARGV[1])
else
  redis.call('ZREM', KEYS[1], ARGV[1])
end
return redis.call('ZCARD', KEYS[1])
