-- Reads products as they are at one moment.
--
-- KEYS  for each product: ledger, details, plain
-- reply for each product: 'absent'; 'adoptable' where only a plain key of the old service is there;
--       or 'ok', the ledger in a fixed order, and the details JSON or null
local replies = {}
for i = 1, #KEYS, 3 do
  local f = redis.call('HMGET', KEYS[i], 'D', 'U', 'A', 'S', 'H', 'F', 'V', 'T', 'P', 'K')
  if f[7] then
    local upsert, deletion = tonumber(f[9]), tonumber(f[10])
    local deleted = upsert == nil or (deletion ~= nil and deletion >= upsert)
    replies[#replies + 1] = {
      'ok', tonumber(f[1]), f[2] and tonumber(f[2]), tonumber(f[3]), tonumber(f[4]), tonumber(f[5]),
      tonumber(f[6]), tonumber(f[7]), tonumber(f[8]), deleted and 1 or 0, redis.call('GET', KEYS[i + 1]),
    }
  elseif redis.call('TYPE', KEYS[i + 2]).ok == 'string' then
    replies[#replies + 1] = { 'adoptable' }
  else
    replies[#replies + 1] = { 'absent' }
  end
end
return replies
