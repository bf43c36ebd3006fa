-- Runs the operations of one batch, in order, each by itself: what one refuses does not touch the
-- others. The end of the script whose other parts are concatenated before this one.
--
-- KEYS  of each operation in turn, those that it touches
-- ARGV  operation retention in ms, changes kept per bucket, changes kept per product, most that an
--       update may lie ahead in ms; the operations as JSON, for each its name, how many keys are its
--       own, and its arguments
-- reply for each operation its reply, which opens with a word ('failed' and why where it ran into an
--       error); and then, flat, the products that they changed, each with the version it came to
local replies, first_key = {}, 1
for i, planned in ipairs(cjson.decode(ARGV[5])) do
  local name, key_count, arguments = unpack(planned)
  local keys = { unpack(KEYS, first_key, first_key + key_count - 1) }
  first_key = first_key + key_count
  local ran, reply = pcall(operations[name], keys, arguments)
  if not ran then
    reply = { 'failed', type(reply) == 'table' and reply.err or tostring(reply) }
  end
  replies[i] = reply
end
replies[#replies + 1] = touched
return replies
