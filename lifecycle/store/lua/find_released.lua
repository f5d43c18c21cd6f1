#!lua flags=no-writes,allow-oom
-- find_released: which shares nobody needs any more: their request has ended, or was not admitted and now never will be.
-- KEYS[1] shard prefix
-- ARGV    shift, shares (JSON list of [rid, nonce, admit_by])
-- Returns the positions in the list, from 0. What is over stays over: an end is final, and `admit` refuses what is late
--         by the same clock.

local P = KEYS[1]
local shift, shares = unpack(ARGV)
--- @include clock stream record

local now, over = clock(shift), {}
for i, share in ipairs(cjson.decode(shares)) do
  local rid, nonce, admit_by = unpack(share)
  local known = redis.pcall('HMGET', P .. 'request:' .. rid, 'status', 'nonce')
  local its_own = not known.err and known[2] == nonce
  if its_own and is_terminal({status = known[1]}) or not its_own and now > tonumber(admit_by) then
    over[#over + 1] = i - 1
  end
end
return over
