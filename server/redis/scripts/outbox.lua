-- The outbox of one bucket: the lease of its publisher and the cursor of published entries.
--
-- Fields of the outbox's hash: owner and until (ms) of the lease, token (incremented for each owner),
-- cursor (stream ID of the last published entry), count (entries ever added up to the cursor),
-- due (stream ID up to which to publish before a snapshot; absent if no snapshot is due).
--
-- A stream is trimmed at its oldest end, by entries-added - length entries in total. If that exceeds
-- `count`, unpublished entries were trimmed. A `count` above entries-added means other data.
--
-- KEYS  outbox, changes
-- ARGV  operation, arguments
-- reply starts with 'ok', 'lost' if the token is not the newest, or 'taken'
local outbox, changes, operation = KEYS[1], KEYS[2], ARGV[1]
local clock = redis.call('TIME')
local now_ms = clock[1] * 1000 + math.floor(clock[2] / 1000)

local function stream_state()
  if redis.call('EXISTS', changes) == 0 then
    return 0, 0, '0-0'
  end
  local info, fields = redis.call('XINFO', 'STREAM', changes), {}
  for i = 1, #info, 2 do
    fields[info[i]] = info[i + 1]
  end
  return fields['length'], fields['entries-added'], fields['last-generated-id']
end

local function position()
  local fields = redis.call('HMGET', outbox, 'cursor', 'count')
  return fields[1] or '0-0', tonumber(fields[2] or '0')
end

-- acquire: owner, lease in ms. reply 'ok', token; 'taken'
if operation == 'acquire' then
  local lease = redis.call('HMGET', outbox, 'owner', 'until')
  if lease[1] and lease[1] ~= ARGV[2] and tonumber(lease[2]) > now_ms then
    return { 'taken' }
  end
  local token = redis.call('HINCRBY', outbox, 'token', 1)
  redis.call('HSET', outbox, 'owner', ARGV[2], 'until', now_ms + tonumber(ARGV[3]))
  return { 'ok', token }
end

-- backlog. reply 'ok', unpublished entries, age of the oldest in ms
if operation == 'backlog' then
  local length, added = stream_state()
  local cursor, count = position()
  if count > added then
    cursor, count = '0-0', 0
  end
  local oldest = redis.call('XRANGE', changes, '(' .. cursor, '+', 'COUNT', 1)[1]
  local age_ms = oldest and now_ms - tonumber(string.match(oldest[1], '^%d+')) or 0
  return { 'ok', added - math.max(count, added - length), math.max(0, age_ms) }
end

-- All other operations require the token of the current owner.
if operation == 'beat' then
  redis.call('HSET', outbox, 'beat', now_ms)
  return { 'ok' }
end

if redis.call('HGET', outbox, 'token') ~= ARGV[2] then
  return { 'lost' }
end

-- renew: token, lease in ms
if operation == 'renew' then
  redis.call('HSET', outbox, 'until', now_ms + tonumber(ARGV[3]))
  return { 'ok' }
end

-- release: token
if operation == 'release' then
  redis.call('HINCRBY', outbox, 'token', 1)
  redis.call('HDEL', outbox, 'owner', 'until')
  return { 'ok' }
end

-- read: token, limit. reply 'ok', whether a snapshot is due, entries
if operation == 'read' then
  local length, added, last = stream_state()
  local cursor, count = position()
  if added - length > count or count > added then
    cursor, count = '0-0', added - length
    redis.call('HSET', outbox, 'cursor', cursor, 'count', count, 'due', last)
  end
  local due = redis.call('HGET', outbox, 'due')
  local is_due = due and #redis.call('XRANGE', changes, '(' .. cursor, due, 'COUNT', 1) == 0
  return { 'ok', is_due and 1 or 0, redis.call('XRANGE', changes, '(' .. cursor, '+', 'COUNT', ARGV[3]) }
end

-- advance: token, stream ID of the last published entry, number of entries published
if operation == 'advance' then
  local _, count = position()
  redis.call('HSET', outbox, 'cursor', ARGV[3], 'count', count + tonumber(ARGV[4]))
  return { 'ok' }
end

-- snapshot_done: token
if operation == 'snapshot_done' then
  redis.call('HDEL', outbox, 'due')
  return { 'ok' }
end

return redis.error_reply('unknown operation ' .. operation)
