-- Runs the operations of one batch, in order, each by itself: what one refuses does not touch the
-- others. The end of the script whose other parts are concatenated before this one.
--
-- KEYS  every key that any operation of the batch touches, each once
-- ARGV  operation retention in ms, changes kept per bucket, changes kept per product, most that an
--       update may lie ahead in ms; then for each operation its name, the number of its keys,
--       their places in KEYS, the number of its arguments, the arguments
-- reply for each operation its reply, which opens with a word ('failed' and why where it ran into an
--       error); and then, flat, the products that they changed, each with the version it came to
local replies = {}
local at = operations_start
while at <= #ARGV do
  local operation = operations[ARGV[at]]
  local key_count = tonumber(ARGV[at + 1])
  local keys, arguments = {}, {}
  for i = 1, key_count do
    keys[i] = KEYS[tonumber(ARGV[at + 1 + i])]
  end
  at = at + 2 + key_count
  local argument_count = tonumber(ARGV[at])
  for i = 1, argument_count do
    arguments[i] = ARGV[at + i]
  end
  at = at + 1 + argument_count
  local ran, reply = pcall(operation, keys, arguments)
  if not ran then
    reply = { 'failed', type(reply) == 'table' and reply.err or tostring(reply) }
  end
  replies[#replies + 1] = reply
end
replies[#replies + 1] = touched
return replies
