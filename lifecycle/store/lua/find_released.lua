#!lua flags=no-writes,allow-oom
-- find_released: finds quota slots that are no longer needed: the request has ended, or can no longer be admitted.
-- KEYS[1] shard prefix
-- ARGV    shift, slots (JSON list of [rid, nonce, admit_by])
-- Returns the positions in the list, from 0. This is final: an end is final, and admit refuses a late admission by the
--         same clock.

local P = KEYS[1]
local shift, slots = unpack(ARGV)
--- @include now record

local released = {}
for i, slot in ipairs(cjson.decode(slots)) do
  local rid, nonce, admit_by = unpack(slot)
  local known = read_typed('HMGET', P .. 'request:' .. rid, 'status', 'nonce')
  local its_own = known[2] == nonce
  if its_own and is_terminal({status = known[1]}) or not its_own and now > tonumber(admit_by) then
    released[#released + 1] = i - 1
  end
end
return released
