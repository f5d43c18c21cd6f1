-- Returns Redis's time in seconds, precise to microseconds. `shift` is 0 except in tests.
local function clock(shift)
  local t = redis.call('TIME')
  return tonumber(t[1]) + tonumber(t[2]) / 1000000 + tonumber(shift)
end

local function secs(number)
  return string.format('%.6f', number)
end
