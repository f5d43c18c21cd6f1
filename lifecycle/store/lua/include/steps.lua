-- The steps of a request that its record's other fields do not tell, for its timeline. The record's field `steps` has them as
-- lines of JSON. An ordinary request has none, so it costs nothing.
--- @include now numbers record

local STEPS_KEPT = 64  -- the first half and the last half of those that were noted

-- Notes a step of a request; `step` is a table with `what`. The caller has checked that the step is taken only once.
local function note_step(record, step)
  step.at = secs(now)  -- as text: cjson would round it
  local lines = {}
  for line in string.gmatch(record.steps or '', '[^\n]+') do lines[#lines + 1] = line end
  if #lines >= STEPS_KEPT then
    table.remove(lines, STEPS_KEPT / 2 + 1)
    set_field(record, 'steps_left_out', tostring(tonumber(record.steps_left_out or '0') + 1))
  end
  lines[#lines + 1] = cjson.encode(step)
  set_field(record, 'steps', table.concat(lines, '\n'))
end
