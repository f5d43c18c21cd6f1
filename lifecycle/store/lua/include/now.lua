-- Redis's time in seconds, precise to microseconds. `shift` is 0 except in tests.
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000 + tonumber(shift)
