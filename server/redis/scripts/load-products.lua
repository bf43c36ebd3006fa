-- Reads ledgers of a bucket for a snapshot: a page of all, or some by their IDs. Optimised for cost: a server reads up to a
-- million of them when it starts, and the other keys are derived here so that their names are not sent.
--
-- KEYS  the set of the bucket's products
-- ARGV  prefix of ledgers; then for a page: cursor of the set, number of products; or by ID: '', IDs
-- reply the next cursor, the IDs, the ledgers
--       ledgers: JSON with an array for each product, the fields D A S H F V T P K of its ledger, null if missing; empty
--       if there is no ledger or, in a page, if its key has a foreign type
local call, concat = redis.call, table.concat
local ledger = ARGV[1]
local cursor, ids, read = '', nil, call
if ARGV[2] ~= '' then
  local page = call('SSCAN', KEYS[1], ARGV[2], 'COUNT', ARGV[3])
  cursor, ids, read = page[1], page[2], redis.pcall
else
  ids = { unpack(ARGV, 3) }
end
local rows = {}
for i, id in ipairs(ids) do
  local f = read('HMGET', ledger .. id, 'D', 'A', 'S', 'H', 'F', 'V', 'T', 'P', 'K')
  if f[6] or f[1] or f[2] or f[3] or f[4] or f[5] or f[7] or f[8] or f[9] then
    for n = 1, 9 do
      f[n] = f[n] or 'null'
    end
    rows[i] = concat(f, ',')
  else
    rows[i] = ''
  end
end
return { cursor, ids, '[[' .. concat(rows, '],[') .. ']]' }
