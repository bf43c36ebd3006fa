-- Reads products for the full picture, as cheaply as it goes: a million of them are read when a server starts.
--
-- KEYS  for each product: ledger, details
-- reply for each product, flat: the fields D A S H F V T P K of its ledger with a space between two, a missing one
--       empty, or null where there is no ledger; the details JSON or null
local replies = {}
for i = 1, #KEYS, 2 do
  local f = redis.call('HMGET', KEYS[i], 'D', 'A', 'S', 'H', 'F', 'V', 'T', 'P', 'K')
  if f[6] then
    for n = 1, 9 do
      f[n] = f[n] or ''
    end
    replies[i] = table.concat(f, ' ')
  else
    replies[i] = false
  end
  replies[i + 1] = redis.call('GET', KEYS[i + 1])
end
return replies
