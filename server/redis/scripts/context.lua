-- What all operations share: the settings, the clock, and the actor.
--
-- Numbers are Lua doubles, exact up to 2^53, so microseconds of any year up to 2255 survive. Format
-- them with %d, never with tostring or ..: those round to 14 digits.

local operation_retention_ms = ARGV[1]
local quantity_max = 2147483647

local clock = redis.call('TIME')
local now_micros = clock[1] * 1000000 + clock[2]
local now_ms = math.floor(now_micros / 1000)

local operations = {}

-- Who causes the changes of the operation that runs; empty if unknown. Has no line end.
local actor = ''

local integer_max = 9007199254740992

local function is_integer(value)
  return type(value) == 'number' and value % 1 == 0 and value > -integer_max and value < integer_max
end
