-- One operation per call of redis-benchmark, instead of run-batch.lua. It counts orders to find its
-- own: the n-th commit is of the n-th reservation.
--
-- KEYS  the counter of the operation
-- ARGV  the four settings of run-batch.lua; 'reserve' or 'commit'; the number of products
-- reply the reply of the operation; unless it is 'ok', an error, and the counter is unchanged
local n = redis.call('INCR', KEYS[1])
local id = string.format('benchmark-%014d', n)
local reservation = { '{b00}:r:' .. id, '{b00}:deadlines' }
local plan, reply = new_plan(), nil
if ARGV[5] == 'reserve' then
  local product_id = string.format('product-%07d', n % tonumber(ARGV[6]) + 1)
  reply = operations.reserve(
    { reservation[1], reservation[2], '{b00}:p:' .. product_id, '{b00}:h:' .. product_id, '{b00}:changes' },
    { id, 'a-fingerprint-of-lines', 600000, '[["' .. product_id .. '",0,1]]', product_id, 1 }, plan)
else
  reply = operations.commit_reservation(reservation, { id, '' }, plan)
end
if reply[1] ~= 'ok' and reply[1] ~= 'held' then
  redis.call('DECR', KEYS[1])
  return redis.error_reply('ERR ' .. reply[1])
end
run_plan(plan)
write_ledgers()
return reply
