-- Sellers' events. The rules are those of inventory/product-event.ts.

local update_ahead_ms_max = tonumber(ARGV[4])

local function time_of_event(text)
  local at = tonumber(text) or now_micros
  if at > now_micros - now_micros % 1000 + update_ahead_ms_max * 1000 then
    return nil
  end
  return at
end

-- Whether the text is a JSON array as encodeDetails in reply.ts writes it.
local function are_details(text)
  local ran, details = pcall(cjson.decode, text)
  return ran and type(details) == 'table' and type(details[1]) == 'string' and type(details[2]) == 'string'
    and type(details[3]) == 'number' and type(details[4]) == 'string'
end

-- Above 0 if delivery `a` is later than `b`, 0 if they are the same. A delivery is 'timestamp offset partition' or nil,
-- which precedes all others (compareDeliveries in inventory/delivery.ts).
local function compare_deliveries(a, b)
  if a == b or not a or not b then
    return (a and 1 or 0) - (b and 1 or 0)
  end
  local next_of_b = string.gmatch(b, '%d+')
  for text in string.gmatch(a, '%d+') do
    local difference = tonumber(text) - tonumber(next_of_b() or 0)
    if difference ~= 0 then
      return difference
    end
  end
  return 0
end

-- Compares an event with a register of time `fence`. The ledger's field `name` has the register's time and delivery; it
-- is of no use, and ignored, if a call or an earlier release has set the register since.
local function compare_with_register(key, name, at, delivery, fence)
  if at ~= fence then
    return at - fence
  end
  local known = ledgers[key] and ledgers[key][name] or read('ledger', 'HGET', key, name)
  local known_at, known_delivery = string.match(known or '', '^(%d+) (.+)$')
  return compare_deliveries(delivery, tonumber(known_at) == fence and known_delivery or nil)
end

-- The product of a seller's event. Without a ledger it is adopted from the count `plain` in its plain key, or new if `plain`
-- is 'none'. Nil if there is no ledger, and `plain` is '' because the caller has not read the plain key.
local function product_of_event(plan, keys, product_id, plain)
  local p = load_product(keys.ledger)
  if p or plain == '' then
    return p
  end
  return plain == 'none' and new_product(keys.history) or adopt(plan, keys, product_id, tonumber(plain))
end

-- put_product
-- KEYS  ledger, history, changes, details, products
-- ARGV  product ID, time of the update in µs or '' for now, declared or '', details JSON or '', delivery or '', plain
-- reply 'applied' | 'unchanged' | 'stale', and the ledger; 'future', now in ms; 'range', declared and units on hand if it
--       were applied; 'absent' as in product_of_event
operations.put_product = function(k, a, plan)
  local keys = { ledger = k[1], history = k[2], changes = k[3], details = k[4], products = k[5] }
  local product_id, declared, details = a[1], tonumber(a[3]), a[4] ~= '' and a[4] or nil
  local delivery = a[5] ~= '' and a[5] or nil
  local at = time_of_event(a[2])
  if at == nil then
    return { 'future', now_ms }
  end
  local p = product_of_event(plan, keys, product_id, a[6])
  if p == nil then
    return { 'absent' }
  end
  local was_deleted, available_before = is_deleted(p), available(p)
  local declared_before, declare_time_before = p.D, p.U
  local details_time_before, upsert_time_before = p.X, p.P
  local upsert_fence = p.P or -1
  local declared_place = declared and compare_with_register(keys.ledger, 'Q', at, delivery, p.U or -1)
  local details_place = details and compare_with_register(keys.ledger, 'R', at, delivery, p.X or -1)
  local place = delivery and string.format('%.0f ', at) .. delivery
  -- Damaged details are reported and ignored: SET replaces a key of any type, so the next details repair it.
  local details_before = attempt(read, 'details', 'GET', keys.details) or nil

  if declared and declared_place >= 0 then
    p.D = declared_place == 0 and math.min(p.D, declared) or declared
    p.U = at
    if place then
      p.Q = place
    end
  end
  if (p.D > declared_before and on_hand(p) > quantity_max)
    or (p.D < declared_before and p.H - on_hand(p) > quantity_max) then
    return { 'range', p.D, on_hand(p) }
  end
  local details_after = details_before
  if details and details_place > 0 then
    details_after = details
    p.X = at
    if place then
      p.R = place
    end
  end
  p.P = math.max(at, upsert_fence)

  local won = (declared and declared_place >= 0) or (details and details_place >= 0)
    or (not declared and not details and at >= upsert_fence)
  local appeared = was_deleted and not is_deleted(p)
  local declared_changed = p.D ~= declared_before
  -- The details of a deleted product are not visible; a restoration records them.
  local details_changed = details_after ~= details_before and not is_deleted(p)
  if appeared and details_after and details_after == details_before and not are_details(details_after) then
    report_damage('details', keys.details, 'not [name, description, price, collection ID]')
    details_after = nil
  end
  if p.T == 0 then
    add_product(plan, keys.products, product_id)
  end
  if details_after and details_after ~= details_before then
    plan_write(plan, 'SET', keys.details, details_after)
  end
  local visible = appeared or declared_changed or details_changed or p.U ~= declare_time_before
  if visible then
    local cause = (details_changed and not declared_changed and not appeared) and 'details' or 'declared'
    record(plan, keys, product_id, p, cause, available_before, '', '', (details_changed or appeared) and details_after or nil)
  else
    plan_ledger(plan, keys.ledger, p)
  end
  if not won or is_deleted(p) then
    return reply('stale', p)
  end
  local changed = visible or p.X ~= details_time_before or p.P ~= upsert_time_before
  return reply(changed and 'applied' or 'unchanged', p)
end

-- delete_product
-- KEYS  ledger, history, changes, products
-- ARGV  product ID, time of the deletion in µs or '' for now, plain
-- reply 'applied' | 'unchanged' | 'stale', and the ledger; 'future', now in ms; 'absent' as in product_of_event
operations.delete_product = function(k, a, plan)
  local keys = { ledger = k[1], history = k[2], changes = k[3], products = k[4] }
  local product_id = a[1]
  local at = time_of_event(a[2])
  if at == nil then
    return { 'future', now_ms }
  end
  local p = product_of_event(plan, keys, product_id, a[3])
  if p == nil then
    return { 'absent' }
  end
  local was_deleted, never_seen = is_deleted(p), p.T == 0
  local status = (at < (p.P or -1) or at < (p.K or -1)) and 'stale' or at == p.K and 'unchanged' or 'applied'
  p.K = math.max(at, p.K or -1)
  if never_seen then
    add_product(plan, keys.products, product_id)
  end
  if never_seen or (not was_deleted and is_deleted(p)) then
    record(plan, keys, product_id, p, 'deleted', available(p), '', '')
  else
    plan_ledger(plan, keys.ledger, p)
  end
  return reply(status, p)
end

-- adopt_product
-- KEYS  ledger, history, changes, products
-- ARGV  product ID, count in its plain key
-- reply 'ok' and the ledger, unchanged if there was one
operations.adopt_product = function(k, a, plan)
  local keys = { ledger = k[1], history = k[2], changes = k[3], products = k[4] }
  return reply('ok', load_product(keys.ledger) or adopt(plan, keys, a[1], tonumber(a[2])))
end

-- The name, the description and the delivery of a stored collection. Nothing of a damaged one: the next event repairs it.
local function decode_collection(json)
  local ran, fields = pcall(cjson.decode, json)
  fields = ran and type(fields) == 'table' and fields or {}
  return fields[1], fields[2], type(fields[3]) == 'string' and fields[3] or nil
end

-- put_collection
-- KEYS  collections
-- ARGV  collection ID, time of the event in µs or '' for now, JSON or '' for a deletion
-- reply 'applied' | 'unchanged', of an event that repeats what is stored | 'stale'; 'future', now in ms
operations.put_collection = function(k, a, plan)
  local at, json = time_of_event(a[2]), a[3]
  if at == nil then
    return { 'future', now_ms }
  end
  local known = read('collection', 'HGET', k[1], a[1])
  local fence, known_json = string.match(known or '', '^(%d+) (.*)$')
  fence = tonumber(fence) or -1
  if at < fence then
    return { 'stale' }
  end
  if at == fence then
    if known_json == '' then
      return { json == '' and 'unchanged' or 'stale' }
    end
    if json ~= '' then
      local name, description, delivery = decode_collection(json)
      local known_name, known_description, known_delivery = decode_collection(known_json)
      local repeats = name == known_name and description == known_description
      if compare_deliveries(delivery, known_delivery) <= 0 then
        return { repeats and 'unchanged' or 'stale' }
      end
      if repeats then
        plan_write(plan, 'HSET', k[1], a[1], string.format('%.0f ', at) .. json)
        return { 'unchanged' }
      end
    end
  end
  plan_write(plan, 'HSET', k[1], a[1], string.format('%.0f ', at) .. json)
  return { 'applied' }
end
