-- The record of a reservation, on one primary and in a Cluster.
--
-- A reservation is a JSON string: state, lines as [product ID, bucket, quantity], print (fingerprint of
-- the lines; absent if an unknown ID was released), created, expires and ended in ms, sold and left
-- line by line after a commit, revived, returns (IDs of its latest returns, latest last). While it is active, its ID is
-- in the deadlines of its bucket. After it has ended, the key expires after the retention. Units are returned by the ledger's
-- operations only, never by the expiry of a key.

local reservation_states = { active = true, committed = true, released = true, expired = true }

-- As RETURNS_NAMED_MAX in inventory/change-history.ts.
local returns_named_max = 100

local function are_quantities(list, count)
  if type(list) ~= 'table' or #list ~= count then
    return false
  end
  for _, quantity in ipairs(list) do
    if not is_integer(quantity) or quantity < 0 then
      return false
    end
  end
  return true
end

local function are_lines(lines)
  if type(lines) ~= 'table' or #lines == 0 then
    return false
  end
  local seen = {}
  for _, line in ipairs(lines) do
    if type(line) ~= 'table' or #line ~= 3 or type(line[1]) ~= 'string' or seen[line[1]] then
      return false
    end
    if not is_integer(line[2]) or line[2] < 0 or not is_integer(line[3]) or line[3] < 1 then
      return false
    end
    seen[line[1]] = true
  end
  return true
end

-- Whether the record is one that this script writes. An ID that was released before it was reserved has no lines.
local function is_reservation(r)
  if type(r) ~= 'table' or not reservation_states[r.state] or not is_integer(r.created) then
    return false
  elseif r.state == 'released' and r.lines == nil then
    return true
  end
  return are_lines(r.lines) and type(r.print) == 'string' and is_integer(r.expires)
    and (r.state == 'active' or is_integer(r.ended)) and (r.revived == nil or type(r.revived) == 'boolean')
    and (r.state ~= 'committed' or (are_quantities(r.sold, #r.lines) and are_quantities(r.left, #r.lines)))
end

-- Returns the reservation and its text, or nil.
local function load_reservation(key)
  return load_record('reservation', key, is_reservation)
end

local function plan_active(plan, keys, id, expires, text)
  check_type('deadlines', 'ZCARD', keys.deadlines)
  plan_write(plan, 'ZADD', keys.deadlines, string.format('%d', expires), id)
  plan_write(plan, 'SET', keys.record, text)
end

local function is_due(r)
  return r.state == 'active' and r.expires <= now_ms
end

-- Indexes of the lines of a reservation by product ID.
local function line_indexes(r)
  local indexes = {}
  for i, line in ipairs(r.lines) do
    indexes[line[1]] = i
  end
  return indexes
end

-- The units that a commit sells, by line. `a` has the requested ones from its third field on, as product ID and quantity; none:
-- all that are held. The second result is the reply if more than is held is requested.
local function units_to_sell(r, a)
  local sold, indexes = {}, line_indexes(r)
  for i, line in ipairs(r.lines) do
    sold[i] = #a == 2 and line[3] or 0
  end
  for i = 1, (#a - 2) / 2 do
    local quantity, index = tonumber(a[2 * i + 2]), indexes[a[2 * i + 1]]
    local held = index and r.lines[index][3] or 0
    if quantity > held then
      return nil, { 'too_large', i - 1, held }
    end
    if index then
      sold[index] = quantity
    end
  end
  return sold
end

local function is_sold(r, sold)
  for i, quantity in ipairs(sold) do
    if quantity ~= r.sold[i] then
      return false
    end
  end
  return true
end

-- Adds the ID of a return to those that the record names.
local function name_return(r, return_id)
  r.returns = type(r.returns) == 'table' and r.returns or {}
  if #r.returns >= returns_named_max then
    table.remove(r.returns, 1)
  end
  r.returns[#r.returns + 1] = return_id
end

-- Plans the deadline of a reservation, or of nil, as `ttl` ms from now. Returns the reply: 'ok', the reservation; 'missing';
-- 'ended', state.
local function plan_extension(plan, keys, id, r, ttl)
  if not r then
    return { 'missing' }
  elseif r.state ~= 'active' or is_due(r) then
    return { 'ended', r.state == 'active' and 'expired' or r.state }
  end
  r.expires = now_ms + tonumber(ttl)
  local text = cjson.encode(r)
  plan_active(plan, keys, id, r.expires, text)
  return { 'ok', text }
end
