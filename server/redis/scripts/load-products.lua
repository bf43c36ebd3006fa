-- Reads ledgers for a snapshot. Optimised for cost: a server reads up to a million of them when it starts.
--
-- KEYS  for each product: ledger
-- reply JSON with an array for each product: the fields D A S H F V T P K of its ledger, null if missing;
--       empty if there is no ledger
local call, concat = redis.call, table.concat
local rows = {}
for i = 1, #KEYS do
  local f = call('HMGET', KEYS[i], 'D', 'A', 'S', 'H', 'F', 'V', 'T', 'P', 'K')
  if f[6] or f[1] or f[2] or f[3] or f[4] or f[5] or f[7] or f[8] or f[9] then
    for n = 1, 9 do
      f[n] = f[n] or 'null'
    end
    rows[i] = concat(f, ',')
  else
    rows[i] = ''
  end
end
return '[[' .. concat(rows, '],[') .. ']]'
