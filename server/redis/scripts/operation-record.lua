-- The records of completed operations: their fingerprint, and the changes that they have made.

-- Whether the operation with this ID was completed before: 'new', 'repeated', or 'reused' if the ID
-- belongs to an operation with another fingerprint.
local function operation_status(key, fingerprint)
  local seen = read('operation', 'GET', key)
  if not seen then
    return 'new'
  end
  return seen == fingerprint and 'repeated' or 'reused'
end

-- As CORRECTIONS_NAMED_MAX in inventory/change-history.ts.
local corrections_named_max = 256

-- Plans the record of the changes that the operation with this ID has made: JSON, for each change product ID and version.
-- Other operations may have the same ID and the same bucket, so their latest changes are kept. A damaged record is replaced.
local function plan_reference(plan, key, changes)
  local known = attempt(read, 'reference', 'GET', key)
  local ran, all = pcall(cjson.decode, known or '[]')
  if not ran or type(all) ~= 'table' then
    all = {}
  end
  for _, change in ipairs(changes) do
    all[#all + 1] = change
  end
  while #all > corrections_named_max do
    table.remove(all, 1)
  end
  plan_write(plan, 'SET', key, cjson.encode(all), 'PX', operation_retention_ms)
end
