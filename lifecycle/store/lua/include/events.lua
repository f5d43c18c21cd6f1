-- Telling readers and subscribers. What is told here has been written durably before, in the same script.

-- One frame for each of these frontends: [[rid, entry id, event]]. The dead get nothing.
-- `before`: an item and its comma, which go ahead in the same frame.
local function push(frontends, rid, id, event, before)
  local frame = '[' .. (before or '') .. '["' .. rid .. '","' .. id .. '",' .. event .. ']]'
  for _, frontend in ipairs(frontends) do
    if redis.call('EXISTS', P .. 'fenced:' .. frontend) == 0 then
      redis.call('SPUBLISH', P .. 'inbox:' .. frontend, frame)
    end
  end
end

-- To each frontend that reads `rid`.
local function push_event(rid, id, event, before)
  push(redis.call('HKEYS', P .. 'readers:' .. rid), rid, id, event, before)
end

-- Channels carry no hash tag, so that subscribers need not know the shards.
local function tell(channel, message)
  redis.call('PUBLISH', string.match(P, '^(.-):{') .. ':' .. channel, cjson.encode(message))
end

local function publish(rid, message)
  tell('request:' .. rid, message)
end
