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
-- reply starts with 'ok', 'lost' if the token is not the newest, 'taken', or 'damaged' and the reason
--
-- Each operation has at most one write command, its last one: Redis does not roll back a script.
local outbox, changes, operation = KEYS[1], KEYS[2], ARGV[1]
for _, key in ipairs(KEYS) do
  local type_of_key = redis.call('TYPE', key).ok
  if type_of_key ~= 'none' and type_of_key ~= (key == outbox and 'hash' or 'stream') then
    return { 'damaged', key .. ' has the type ' .. type_of_key }
  end
end
local fields = redis.call('HMGET', outbox, 'owner', 'until', 'token', 'cursor', 'count', 'due')
local owner, cursor = fields[1] or '', fields[4] or '0-0'
local lease_until, token, count = tonumber(fields[2] or '0'), tonumber(fields[3] or '0'), tonumber(fields[5] or '0')
local due = fields[6]
if not lease_until or not token or not count or not string.find(cursor, '^%d+%-%d+$')
  or (due and not string.find(due, '^%d+%-%d+$')) then
  return { 'damaged', outbox .. ' has an invalid field' }
end

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

-- acquire: owner, lease in ms. reply 'ok', token; 'taken'
if operation == 'acquire' then
  if owner ~= '' and owner ~= ARGV[2] and lease_until > now_ms then
    return { 'taken' }
  end
  local next_token = string.format('%d', token + 1)
  redis.call('HSET', outbox, 'token', next_token, 'owner', ARGV[2], 'until', now_ms + tonumber(ARGV[3]))
  return { 'ok', token + 1 }
end

-- backlog. reply 'ok', unpublished entries, age of the oldest in ms
if operation == 'backlog' then
  local length, added = stream_state()
  if count > added then
    cursor, count = '0-0', 0
  end
  local oldest = redis.call('XRANGE', changes, '(' .. cursor, '+', 'COUNT', 1)[1]
  local age_ms = oldest and now_ms - tonumber(string.match(oldest[1], '^%d+')) or 0
  return { 'ok', added - math.max(count, added - length), math.max(0, age_ms) }
end

-- beat. Writes the field `beat`, so that WAIT has a write of this connection to wait for
if operation == 'beat' then
  redis.call('HSET', outbox, 'beat', now_ms)
  return { 'ok' }
end

-- All other operations require the token of the current owner.
if fields[3] ~= ARGV[2] then
  return { 'lost' }
end

-- renew: token, lease in ms
if operation == 'renew' then
  redis.call('HSET', outbox, 'until', now_ms + tonumber(ARGV[3]))
  return { 'ok' }
end

-- release: token
if operation == 'release' then
  redis.call('HSET', outbox, 'token', string.format('%d', token + 1), 'owner', '', 'until', 0)
  return { 'ok' }
end

-- read: token, limit. reply 'ok', whether a snapshot is due, entries
if operation == 'read' then
  local length, added, last = stream_state()
  local has_gap = added - length > count or count > added
  if has_gap then
    cursor, count, due = '0-0', added - length, last
  end
  local is_due = due and #redis.call('XRANGE', changes, '(' .. cursor, due, 'COUNT', 1) == 0
  local entries = redis.call('XRANGE', changes, '(' .. cursor, '+', 'COUNT', ARGV[3])
  if has_gap then
    redis.call('HSET', outbox, 'cursor', cursor, 'count', count, 'due', due)
  end
  return { 'ok', is_due and 1 or 0, entries }
end

-- advance: token, stream ID of the last published entry, number of entries published
if operation == 'advance' then
  -- A repetition, after a lost reply, has nothing to move.
  if cursor ~= ARGV[3] then
    redis.call('HSET', outbox, 'cursor', ARGV[3], 'count', count + tonumber(ARGV[4]))
  end
  return { 'ok' }
end

-- snapshot_done: token
if operation == 'snapshot_done' then
  redis.call('HDEL', outbox, 'due')
  return { 'ok' }
end

return redis.error_reply('unknown operation ' .. operation)
