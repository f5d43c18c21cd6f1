-- An operator's instruction to a replica, in its entry of the list: `<revision> <action> <by>`. It has a later revision than
-- all before it. A replica tells with each heartbeat which one it has followed, so that Redis may lose it.

local function revision_of(instruction)
  return tonumber(string.match(instruction, '^%d+') or '0')
end

local function later_instruction(one, other)
  return revision_of(one) > revision_of(other) and one or other
end
