-- The record of what a reservation holds in one bucket of a Cluster.
--
-- A hold is a JSON string: epoch, print (fingerprint of the attempt), revision (of the newest effect applied; -1
-- before any), lines as [product ID, held, sold], cancelled. It says what one reservation holds and has sold in this
-- bucket, and changes in the same step as the ledgers. Reservations whose attempt may not be decided are in `undecided`,
-- by the time of the hold.

local function is_hold(x)
  if type(x) ~= 'table' or not is_integer(x.epoch) or type(x.print) ~= 'string' or not is_integer(x.revision)
    or type(x.lines) ~= 'table' then
    return false
  end
  for _, line in ipairs(x.lines) do
    if type(line) ~= 'table' or type(line[1]) ~= 'string' or not is_integer(line[2]) or not is_integer(line[3]) then
      return false
    end
  end
  return true
end

-- Returns the hold, or nil.
local function load_hold(key)
  return (load_record('hold', key, is_hold))
end
