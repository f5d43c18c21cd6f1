-- Returns Redis's time in seconds, precise to microseconds. `shift` is 0 except in tests.
local function clock(shift)
  local t = redis.call('TIME')
  return tonumber(t[1]) + tonumber(t[2]) / 1000000 + tonumber(shift)
end

-- Returns seconds as text with six decimal places. Two integers are formatted in half the time of a float.
local function secs(number)
  if number < 0 or number > 4000000000 then return string.format('%.6f', number) end
  local micros = number * 1000000 + 0.5
  local rest = micros % 1000000
  return string.format('%d.%06d', (micros - rest) / 1000000, rest)
end
