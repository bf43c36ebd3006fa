-- Runs the operations of one batch in order, each by itself: a refusal or error of one does not affect the
-- others. The other parts of the script are concatenated before this one.
--
-- KEYS  the keys of each operation, in order
-- ARGV  operation retention in ms, changes kept per bucket, changes kept per product, maximum
--       lead of an update's time in ms; the operations as JSON: for each its name, number of keys and
--       arguments
-- reply for each operation its reply, which starts with a status ('failed' and the reason if it raised
--       an error); then the changed products: product ID and new version, alternating
local replies, first_key = {}, 1
for i, operation in ipairs(cjson.decode(ARGV[5])) do
  local name, key_count, arguments = unpack(operation)
  local keys = { unpack(KEYS, first_key, first_key + key_count - 1) }
  first_key = first_key + key_count
  local ran, reply = pcall(operations[name], keys, arguments)
  if not ran then
    reply = { 'failed', type(reply) == 'table' and reply.err or tostring(reply) }
  end
  replies[i] = reply
end
replies[#replies + 1] = changed
return replies
