-- Sellers' events. The rules are those of inventory/product-event.ts.

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

-- put_product
-- KEYS  ledger, history, changes, details, products, plain
-- ARGV  product ID, time of the update in µs or '' for now, declared or '', details JSON or ''
-- reply 'applied' | 'stale', and the ledger; 'future', now in ms; 'range', declared and units on hand if it were applied
operations.put_product = function(k, a, plan)
  local keys = { ledger = k[1], history = k[2], changes = k[3], details = k[4], products = k[5], plain = k[6] }
  local product_id, declared, details = a[1], tonumber(a[3]), a[4] ~= '' and a[4] or nil
  local at = time_of_event(a[2])
  if at == nil then
    return { 'future', now_ms }
  end
  local p = load_product(keys.ledger) or adopt(plan, keys, product_id) or new_product(keys.history)
  local was_deleted, available_before = is_deleted(p), available(p)
  local declared_before, declare_time_before = p.D, p.U
  local declared_fence, details_fence, upsert_fence = p.U or -1, p.X or -1, p.P or -1
  -- Damaged details are reported and ignored: SET replaces a key of any type, so the next details repair it.
  local details_before = attempt(read, 'details', 'GET', keys.details) or nil

  if declared and at >= declared_fence then
    p.D = at == declared_fence and math.min(p.D, declared) or declared
    p.U = at
  end
  if (p.D > declared_before and on_hand(p) > quantity_max)
    or (p.D < declared_before and p.H - on_hand(p) > quantity_max) then
    return { 'range', p.D, on_hand(p) }
  end
  local details_after = details_before
  if details and at > details_fence then
    details_after = details
    p.X = at
  end
  p.P = math.max(at, upsert_fence)

  local won = (declared and at >= declared_fence) or (details and at >= details_fence)
    or (not declared and not details and at >= upsert_fence)
  local appeared = was_deleted and not is_deleted(p)
  local declared_changed = p.D ~= declared_before
  -- The details of a deleted product are not visible; a revival records them.
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
  if appeared or declared_changed or details_changed or p.U ~= declare_time_before then
    local cause = (details_changed and not declared_changed and not appeared) and 'details' or 'declared'
    record(plan, keys, product_id, p, cause, available_before, '', '', (details_changed or appeared) and details_after or nil)
  else
    store_product(plan, keys.ledger, p)
  end
  return reply((won and not is_deleted(p)) and 'applied' or 'stale', p)
end

-- delete_product
-- KEYS  ledger, history, changes, products, plain
-- ARGV  product ID, time of the deletion in µs or '' for now
-- reply 'applied' | 'stale', and the ledger; 'future', now in ms
operations.delete_product = function(k, a, plan)
  local keys = { ledger = k[1], history = k[2], changes = k[3], products = k[4], plain = k[5] }
  local product_id = a[1]
  local at = time_of_event(a[2])
  if at == nil then
    return { 'future', now_ms }
  end
  local p = load_product(keys.ledger) or adopt(plan, keys, product_id) or new_product(keys.history)
  local was_deleted, never_seen = is_deleted(p), p.T == 0
  local applied = at >= (p.P or -1) and at >= (p.K or -1)
  p.K = math.max(at, p.K or -1)
  if never_seen then
    add_product(plan, keys.products, product_id)
  end
  if never_seen or (not was_deleted and is_deleted(p)) then
    record(plan, keys, product_id, p, 'deleted', available(p), '', '')
  else
    store_product(plan, keys.ledger, p)
  end
  return reply(applied and 'applied' or 'stale', p)
end

-- adopt_product
-- KEYS  ledger, history, changes, products, plain
-- ARGV  product ID
-- reply 'ok' and the ledger if the product exists now; 'absent'
operations.adopt_product = function(k, a, plan)
  local keys = { ledger = k[1], history = k[2], changes = k[3], products = k[4], plain = k[5] }
  local p = load_product(keys.ledger) or adopt(plan, keys, a[1])
  if p == nil then
    return { 'absent' }
  end
  return reply('ok', p)
end

-- put_collection
-- KEYS  collections
-- ARGV  collection ID, time of the event in µs, JSON or '' for a deletion
-- reply 'applied' | 'stale'; 'future', now in ms
operations.put_collection = function(k, a, plan)
  local at = time_of_event(a[2])
  if at == nil then
    return { 'future', now_ms }
  end
  local known = read('collection', 'HGET', k[1], a[1])
  local fence = known and tonumber(string.match(known, '^%d+')) or -1
  if at > fence or (at == fence and a[3] == '') then
    plan_write(plan, 'HSET', k[1], a[1], string.format('%.0f ', at) .. a[3])
  end
  return { at >= fence and 'applied' or 'stale' }
end
