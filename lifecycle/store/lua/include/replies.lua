-- The replies to the requests of a merged call. An error of one is its own reply, and stops none of the others.

local replies, changed = {}, {}  -- `changed` has, by the place of its reply, each request that was begun or ended

local function error_reply(failure)
  return type(failure) == 'table' and failure or {err = 'ERR ' .. tostring(failure)}
end

-- Adds the reply that `handle` returns for the request whose arguments begin here; and the request, if it has changed.
local function reply_with(handle, first)
  local is_done, reply, one = pcall(handle, first)
  replies[#replies + 1] = is_done and reply or error_reply(reply)
  changed[#replies] = one
end

-- Returns the replies, in which each failure of what requests had in common is the reply to those that it concerns.
local function all_replies()
  for i, one in pairs(changed) do
    if one.failure then replies[i] = error_reply(one.failure) end
  end
  return replies
end
