-- The writes of one operation: planned and checked first, then run.
--
-- Redis does not roll back a script. A command that fails leaves the writes before it in place, and units could be held
-- by no reservation. So an operation only reads, decides and plans its writes; run_plan runs them after it has returned, and
-- write_ledgers writes the ledgers at the end of the batch, in the same atomic step.
-- What could make a write fail is checked before: the type of its key, by reading the key or by check_type, and the
-- permission of this user. Redis itself checks the permission for the keys in KEYS; plan_write checks that for the
-- command, and check_permission that for a key which is not in KEYS. Memory, disk, replicas and the role of this server were
-- checked before the script started, because of the shebang line.

-- Redis formats a number in a command with %.17g, which costs more than a string of digits.
local changes_kept = ARGV[2]
local changes_kept_per_product = ARGV[3]

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

-- The ledgers that operations of this batch have loaded or changed, by key, and the names of the fields that were changed.
-- Operations on the same product share one read and one write: of a hot product nearly all operations of a batch.
local ledgers, changed_fields = {}, {}

-- `records`: writes to the state that later operations read. `ledgers`: by key the changed fields of a ledger, or all of
-- a new one. `changes`: entries of the streams.
local function new_plan()
  return { records = {}, ledgers = {}, changes = {} }
end

local function check_permission(command, key, ...)
  if not redis.acl_check_cmd(command, key, ...) then
    error('NOPERM this user has no permission to run ' .. command .. ' on ' .. key, 0)
  end
end

local is_permitted = {}

-- Plans one command, as a list of its name, key and arguments.
local function plan_command(plan, write)
  local command = write[1]
  if not is_permitted[command] then
    check_permission(unpack(write))
    is_permitted[command] = true
  end
  plan.records[#plan.records + 1] = write
end

local function plan_write(plan, ...)
  plan_command(plan, { ... })
end

-- Plans the change of a ledger. `fields` may change until the plan runs.
local function plan_ledger(plan, key, fields)
  if not is_permitted.HSET then
    check_permission('HSET', key, 'V', '')
    is_permitted.HSET = true
  end
  plan.ledgers[key] = fields
end

-- Plans an entry of the change stream and of the product's history.
local function plan_change(plan, keys, product_id, version, text)
  if not is_permitted.XADD then
    check_permission('XADD', keys.changes, '*', 'c', '')
    is_permitted.XADD = true
  end
  check_type('stream', 'XLEN', keys.changes)
  plan.changes[#plan.changes + 1] = { keys = keys, product_id = product_id, version = version, text = text }
end

-- XADD fails if the key is not a stream or has a later ID. The change is made all the same.
local function add_entry(stream, kept, exactness, id, text)
  local added = redis.pcall('XADD', stream, 'MAXLEN', exactness, kept, id, 'c', text)
  if is_error(added) then
    report_damage('stream', stream, added.err)
    return nil
  end
  return added
end

-- Changes a ledger for the later operations of the batch. write_ledgers writes it.
local function change_ledger(key, fields)
  local ledger, names = ledgers[key], changed_fields[key]
  if not ledger then
    ledger = {}
    ledger.__index = ledger
    ledgers[key] = ledger
  end
  if not names then
    names = {}
    changed_fields[key] = names
  end
  for name, value in pairs(fields) do
    ledger[name] = value
    names[name] = true
  end
end

-- Writes the changed ledgers, once for the whole batch.
local function write_ledgers()
  for key, names in pairs(changed_fields) do
    local ledger, write = ledgers[key], { 'HSET', key }
    for name in pairs(names) do
      local value = ledger[name]
      write[#write + 1] = name
      write[#write + 1] = type(value) == 'number' and string.format('%d', value) or value
    end
    redis.call(unpack(write))
  end
end

local function run_plan(plan)
  for _, write in ipairs(plan.records) do
    redis.call(unpack(write))
  end
  for key, fields in pairs(plan.ledgers) do
    change_ledger(key, fields)
  end
  for _, change in ipairs(plan.changes) do
    local keys, version, text = change.keys, change.version, change.text
    local id = add_entry(keys.changes, changes_kept, '~', '*', text)
    if id then
      newest_entries[keys.changes] = { id, change.product_id, version }
    end
    add_entry(keys.history, changes_kept_per_product, '=', string.format('%d-0', version), text)
    changed[#changed + 1] = change.product_id
    changed[#changed + 1] = version
  end
end
