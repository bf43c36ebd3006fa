-- One operation a call for redis-benchmark, in the place of run-batch.lua. It finds its order by
-- counting: the n-th commit is of the n-th reservation.
--
-- KEYS  the counter of the operation
-- ARGV  the four settings of run-batch.lua; 'reserve' or 'commit'; how many products there are
-- reply the operation's own; an error, and the counter as it was, where it is not 'ok'
local n = redis.call('INCR', KEYS[1])
local id = string.format('benchmark-%014d', n)
local reservation = { '{b00}:r:' .. id, '{b00}:deadlines' }
local answer
if ARGV[5] == 'reserve' then
  local product_id = string.format('product-%07d', n % tonumber(ARGV[6]) + 1)
  local keys = product_keys(product_id, 0)
  answer = operations.reserve(
    { reservation[1], reservation[2], keys.ledger, keys.history, keys.changes },
    { id, 'a-fingerprint-of-lines', 600000, product_id, 0, 1 })
else
  answer = operations.commit_reservation(reservation, { id, '' })
end
if answer[1] ~= 'ok' then
  redis.call('DECR', KEYS[1])
  return redis.error_reply('ERR ' .. answer[1])
end
return answer
