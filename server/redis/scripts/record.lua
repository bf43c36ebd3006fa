-- Reads records that are stored as JSON, and names the keys of the products in them.

local function product_keys(product_id, bucket)
  local tag = string.format('{b%02d}', bucket)
  return {
    ledger = tag .. ':p:' .. product_id,
    history = tag .. ':h:' .. product_id,
    changes = tag .. ':changes',
    is_derived = true,
  }
end

-- Decodes a record that is stored as JSON. Raises damage unless it is valid.
local function decode_record(kind, key, text, is_valid)
  local ran, fields = pcall(cjson.decode, text)
  if not ran or not is_valid(fields) then
    raise_damage(kind, key, ran and 'the record has missing or invalid fields' or 'the record is not JSON')
  end
  return fields
end

-- Returns a record that is stored as JSON and its text, or nil.
local function load_record(kind, key, is_valid)
  local text = read(kind, 'GET', key)
  if text then
    return decode_record(kind, key, text, is_valid), text
  end
end
