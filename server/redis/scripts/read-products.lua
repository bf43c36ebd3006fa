-- Reads products in one atomic step.
--
-- KEYS  for each product: ledger, details
-- reply for each product: 'absent'; 'ok', the ledger as ledger_text in ledger.lua writes it, the details JSON or null, and
--       the error if the details could not be read; or 'damaged' and the reason if the ledger could not be read
local function is_error(reply)
  return type(reply) == 'table' and reply.err ~= nil
end

-- A key of another type is a damaged record. Any other error concerns the whole call.
local function read(command, key, ...)
  local reply = redis.pcall(command, key, ...)
  if is_error(reply) and not string.find(reply.err, '^WRONGTYPE') then
    error(reply.err, 0)
  end
  return reply
end

local function has_any(fields)
  for i = 1, 10 do
    if fields[i] then
      return true
    end
  end
  return false
end

local replies = {}
for i = 1, #KEYS, 2 do
  local f = read('HMGET', KEYS[i], 'D', 'U', 'A', 'S', 'H', 'F', 'V', 'T', 'P', 'K')
  if is_error(f) then
    replies[#replies + 1] = { 'damaged', f.err }
  elseif f[7] or has_any(f) then
    local upsert, deletion = tonumber(f[9] or nil), tonumber(f[10] or nil)
    local deleted = upsert == nil or (deletion ~= nil and deletion >= upsert)
    for n = 1, 8 do
      f[n] = f[n] or ''
    end
    local ledger = table.concat(f, ' ', 1, 8) .. (deleted and ' 1' or ' 0')
    local details = read('GET', KEYS[i + 1])
    replies[#replies + 1] = is_error(details) and { 'ok', ledger, false, details.err } or { 'ok', ledger, details }
  else
    replies[#replies + 1] = { 'absent' }
  end
end
return replies
