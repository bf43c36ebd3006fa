#!lua
-- The shebang makes Redis check before the script runs whether writes are possible. Without it, a replica (the
-- primary before a failover) would serve reads of stale data, and its READONLY error would appear in the reply of one
-- operation, where the connection does not see it.
--
-- The writes of one operation: planned first, then checked, then run.
--
-- Redis does not roll back a script. A command that fails leaves the writes before it in place, and units could be held
-- by no reservation. So an operation only reads, decides and plans its writes. run_plan runs them after the operation
-- has returned. By then every key that the plan writes was read or its type was checked, and run_plan asks Redis
-- whether the user may run each command. Memory, disk, replicas and the role of this server were checked before the
-- script started, because of the shebang line.

-- Changed products of all operations: product ID and new version, alternating.
local changed = {}

-- By change stream its newest entry: ID, product ID, version.
local newest_entries = {}

-- Damaged records that operations found: kind, key, reason, in turn.
local damage = {}

local function report_damage(kind, key, reason)
  local n = #damage
  damage[n + 1], damage[n + 2], damage[n + 3] = kind, key, reason
end

-- Ends the operation: it needs a record that is damaged. Raise it before the operation's writes run.
local function raise_damage(kind, key, reason)
  error({ kind = kind, key = key, reason = reason })
end

local function is_damage(raised)
  return type(raised) == 'table' and raised.kind ~= nil
end

local function is_error(reply)
  return type(reply) == 'table' and reply.err ~= nil
end

-- Runs a command that reads `key`. Raises damage if the key has another type than the command expects.
local function read(kind, command, key, ...)
  local reply = redis.pcall(command, key, ...)
  if is_error(reply) then
    if string.find(reply.err, '^WRONGTYPE') then
      raise_damage(kind, key, 'the key has the type ' .. redis.call('TYPE', key).ok)
    end
    error(reply.err, 0)
  end
  return reply
end

-- Runs `f`. If it raises damage, reports the damage and returns nil: the operation can do without the record.
local function attempt(f, ...)
  local ran, result = pcall(f, ...)
  if ran then
    return result
  elseif is_damage(result) then
    report_damage(result.kind, result.key, result.reason)
    return nil
  end
  error(result, 0)
end

local type_is_checked = {}

-- Raises damage unless the key has the type that `command` expects, or does not exist. For keys that are written and
-- not read; `command` is the cheapest one for the type: XLEN, ZCARD, SCARD.
local function check_type(kind, command, key)
  if not type_is_checked[key] then
    read(kind, command, key)
    type_is_checked[key] = true
  end
end

-- `books`: what later operations decide by. `streams`: entries that report changes; those of change streams have
-- `product_id` and `version` besides.
local function new_plan()
  return { books = {}, streams = {} }
end

local function plan_write(plan, ...)
  plan.books[#plan.books + 1] = { ... }
end

local function check_permission(command, key, ...)
  if not redis.acl_check_cmd(command, key, ...) then
    error('NOPERM this user has no permission to run ' .. command .. ' on ' .. key, 0)
  end
end

local function run_plan(plan)
  for _, write in ipairs(plan.books) do
    check_permission(unpack(write))
  end
  for _, write in ipairs(plan.streams) do
    check_permission(unpack(write))
  end
  for _, write in ipairs(plan.books) do
    redis.call(unpack(write))
  end
  -- Last, so that the books balance whatever happens here. XADD fails if the stream already has a later ID.
  for _, write in ipairs(plan.streams) do
    local id = redis.pcall(unpack(write))
    if is_error(id) then
      report_damage('stream', write[2], id.err)
    elseif write.product_id then
      newest_entries[write[2]] = { id, write.product_id, write.version }
    end
    if write.product_id then
      changed[#changed + 1] = write.product_id
      changed[#changed + 1] = write.version
    end
  end
end
