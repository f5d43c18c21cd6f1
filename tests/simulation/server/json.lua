-- cjson as far as the scripts use it. `decoded` is given by Python: it returns the table of a JSON text.
local escapes = {['"'] = '\\"', ['\\'] = '\\\\', ['/'] = '\\/', ['\b'] = '\\b', ['\f'] = '\\f', ['\n'] = '\\n',
  ['\r'] = '\\r', ['\t'] = '\\t', ['\127'] = '\\u007f'}
local function escape(char) return escapes[char] or string.format('\\u%04x', string.byte(char)) end

local encode
local function is_list(value)
  local count = 0
  for key in pairs(value) do
    if type(key) ~= 'number' then return false end
    count = count + 1
  end
  return count > 0 and count == #value
end

function encode(value)
  local kind = type(value)
  if kind == 'string' then return '"' .. string.gsub(value, '[%c"\\/\127]', escape) .. '"' end
  if kind == 'number' then return string.format('%.14g', value) end
  if kind == 'boolean' or kind == 'nil' then return kind == 'nil' and 'null' or tostring(value) end
  if kind ~= 'table' then error('cannot encode a ' .. kind) end
  local parts = {}
  if is_list(value) then
    for i, element in ipairs(value) do parts[i] = encode(element) end
    return '[' .. table.concat(parts, ',') .. ']'
  end
  for key, element in pairs(value) do
    parts[#parts + 1] = encode(type(key) == 'number' and string.format('%.14g', key) or key) .. ':' .. encode(element)
  end
  return '{' .. table.concat(parts, ',') .. '}'
end

cjson = {encode = encode, decode = decoded}
