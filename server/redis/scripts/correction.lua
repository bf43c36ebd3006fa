-- Corrections by warehouses and operators: counts, adjustments, safety stock.

-- Returns the product, or nil and a status: 'absent' asks the caller to try adopt_product, 'unknown' is final.
local function find_product(key)
  local p = load_product(key)
  if p == nil then
    return nil, 'absent'
  elseif is_deleted(p) then
    return nil, 'unknown'
  end
  return p
end

-- count_stock
-- KEYS  ledger, history, changes, operation, reference
-- ARGV  product ID, count, expected version or '', count ID, reason, fingerprint
-- reply 'ok' and the ledger; 'absent'; 'unknown'; 'reused'; 'version', the actual version
operations.count_stock = function(k, a, plan)
  local keys = { ledger = k[1], history = k[2], changes = k[3] }
  local seen = operation_status(k[4], a[6])
  if seen == 'reused' then
    return { 'reused' }
  elseif seen == 'repeated' then
    return reply('ok', require_product(keys.ledger))
  end
  local p, missing = find_product(keys.ledger)
  if p == nil then
    return { missing }
  end
  local expected = tonumber(a[3])
  if expected and expected ~= p.V then
    return { 'version', p.V }
  end
  local correction, changes = tonumber(a[2]) - on_hand(p), {}
  if correction ~= 0 then
    local available_before = available(p)
    p.A = p.A + correction
    record(plan, keys, a[1], p, 'counted', available_before, a[4], a[5])
    changes[1] = { a[1], p.V }
  end
  plan_write(plan, 'SET', k[4], a[6], 'PX', operation_retention_ms)
  plan_reference(plan, k[5], changes)
  return reply('ok', p)
end

-- adjust_stock
-- KEYS  ledger, history, changes, operation, reference
-- ARGV  product ID, delta, adjustment ID, reason, fingerprint
-- reply 'ok' and the ledger; 'absent'; 'unknown'; 'reused'; 'range', units on hand
operations.adjust_stock = function(k, a, plan)
  local keys = { ledger = k[1], history = k[2], changes = k[3] }
  local seen = operation_status(k[4], a[5])
  if seen == 'reused' then
    return { 'reused' }
  elseif seen == 'repeated' then
    return reply('ok', require_product(keys.ledger))
  end
  local p, missing = find_product(keys.ledger)
  if p == nil then
    return { missing }
  end
  local delta, before = tonumber(a[2]), on_hand(p)
  local after = before + delta
  if (delta < 0 and after < 0) or (delta > 0 and after > quantity_max) then
    return { 'range', before }
  end
  local available_before = available(p)
  p.A = p.A + delta
  record(plan, keys, a[1], p, 'adjusted', available_before, a[3], a[4])
  plan_write(plan, 'SET', k[4], a[5], 'PX', operation_retention_ms)
  plan_reference(plan, k[5], { { a[1], p.V } })
  return reply('ok', p)
end

-- set_safety_stock
-- KEYS  ledger, history, changes
-- ARGV  product ID, safety
-- reply 'ok' and the ledger; 'absent'; 'unknown'
operations.set_safety_stock = function(k, a, plan)
  local keys = { ledger = k[1], history = k[2], changes = k[3] }
  local p, missing = find_product(keys.ledger)
  if p == nil then
    return { missing }
  end
  local safety = tonumber(a[2])
  if safety ~= p.F then
    local available_before = available(p)
    p.F = safety
    record(plan, keys, a[1], p, 'safety', available_before, '', '')
  end
  return reply('ok', p)
end
