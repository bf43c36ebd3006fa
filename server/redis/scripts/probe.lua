-- Tells whether mutations can run. That the script has started shows that Redis accepts writes.

-- probe
-- KEYS  none
-- ARGV  number of buckets
-- reply 'ok'. Fails with NOPERM if the user lacks the permission for a command of any operation.
operations.probe = function(_, a)
  for bucket = 0, tonumber(a[1]) - 1 do
    local tag = string.format('{b%02d}', bucket)
    check_permission('HMGET', tag .. ':p:', 'V')
    check_permission('HSET', tag .. ':p:', 'V', '1')
    check_permission('GET', tag .. ':r:')
    check_permission('SET', tag .. ':r:', '')
    check_permission('SET', tag .. ':d:', '')
    check_permission('SET', tag .. ':op:', '')
    check_permission('XREVRANGE', tag .. ':h:', '+', '-')
    check_permission('XADD', tag .. ':h:', '*', 'c', '')
    check_permission('XLEN', tag .. ':changes')
    check_permission('XADD', tag .. ':changes', '*', 'c', '')
    check_permission('SCARD', tag .. ':products')
    check_permission('SADD', tag .. ':products', '')
    check_permission('ZCARD', tag .. ':deadlines')
    check_permission('ZRANGE', tag .. ':deadlines', '0', '1')
    check_permission('ZADD', tag .. ':deadlines', '0', '')
    check_permission('ZREM', tag .. ':deadlines', '')
  end
  check_permission('HGET', '{b00}:collections', '')
  check_permission('HSET', '{b00}:collections', '', '')
  check_permission('TYPE', '{b00}:layout')
  return { 'ok' }
end
