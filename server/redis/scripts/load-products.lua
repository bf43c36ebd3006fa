-- Reads products of a bucket for a snapshot: a page of all, or some by their IDs. Optimised for cost: a server reads up
-- to a million of them when it starts, and the other keys are derived here so that their names are not sent.
--
-- KEYS  the set of the bucket's products
-- ARGV  prefix of ledgers, prefix of details; then for a page: cursor of the set, number of products; or by ID: '', IDs
-- reply the next cursor, the IDs, the ledgers and the details
--       ledgers: JSON with an array for each product, the fields D A S H F V T P K of its ledger, null if missing; empty
--       if there is no ledger or, in a page, if its key has a foreign type
--       details: in a page JSON with the text of each product, null if missing; by ID the texts or nil
local call, concat = redis.call, table.concat
local ledger, details = ARGV[1], ARGV[2]
local is_page = ARGV[3] ~= ''
local cursor, ids, read = '', nil, call
if is_page then
  local page = call('SSCAN', KEYS[1], ARGV[3], 'COUNT', ARGV[4])
  cursor, ids, read = page[1], page[2], redis.pcall
else
  ids = { unpack(ARGV, 4) }
end
local rows, texts = {}, {}
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
-- One MGET takes half the time of a GET each. A call takes a limited number of arguments.
for from = 1, #ids, 1000 do
  local keys = {}
  for i = from, math.min(from + 999, #ids) do
    keys[#keys + 1] = details .. ids[i]
  end
  for i, text in ipairs(call('MGET', unpack(keys))) do
    texts[from + i - 1] = text or (is_page and 'null')
  end
end
local ledgers = '[[' .. concat(rows, '],[') .. ']]'
return { cursor, ids, ledgers, is_page and '[' .. concat(texts, ',') .. ']' or texts }
