-- Reads products in one atomic step.
--
-- KEYS  for each product: ledger, details, plain
-- reply for each product: 'absent'; 'adoptable' if there is only a plain key of the Go service;
--       or 'ok', the ledger as ledger_text in ledger.lua writes it, and the details JSON or null
local replies = {}
for i = 1, #KEYS, 3 do
  local f = redis.call('HMGET', KEYS[i], 'D', 'U', 'A', 'S', 'H', 'F', 'V', 'T', 'P', 'K')
  if f[7] then
    local upsert, deletion = tonumber(f[9]), tonumber(f[10])
    local deleted = upsert == nil or (deletion ~= nil and deletion >= upsert)
    f[2] = f[2] or ''
    local ledger = table.concat(f, ' ', 1, 8) .. (deleted and ' 1' or ' 0')
    replies[#replies + 1] = { 'ok', ledger, redis.call('GET', KEYS[i + 1]) }
  elseif redis.call('TYPE', KEYS[i + 2]).ok == 'string' then
    replies[#replies + 1] = { 'adoptable' }
  else
    replies[#replies + 1] = { 'absent' }
  end
end
return replies
