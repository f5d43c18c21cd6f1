-- Messages to readers and subscribers. Their content was written durably before, by the same script.

-- Returns the item of a frame that tells an event of a request.
local function item_of(rid, id, event) return '["' .. rid .. '","' .. id .. '",' .. event .. ']' end

-- Sends a frame, which is a list of items, to a frontend that has not expired.
local function send(frontend, frame)
  if redis.call('EXISTS', P .. 'fenced:' .. frontend) == 0 then
    redis.call('SPUBLISH', P .. 'inbox:' .. frontend, frame)
  end
end

-- Sends one frame [[rid, entry id, event]] to each of these frontends that has not expired.
-- `before` are tokens {entry id, JSON, nonce of their start}, whose item comes first in the same frame.
local function push(frontends, rid, id, event, before)
  -- Tokens may be long, and are copied by each concatenation: so there is one.
  local frame = before
    and '[["' .. rid .. '","' .. before[1] .. '",' .. before[2] .. ',"' .. before[3]
      .. '"],["' .. rid .. '","' .. id .. '",' .. event .. ']]'
    or '[["' .. rid .. '","' .. id .. '",' .. event .. ']]'
  for _, frontend in ipairs(frontends) do send(frontend, frame) end
end

-- Sends an event to each frontend that reads `rid`.
local function push_event(rid, id, event)
  push(redis.call('HKEYS', P .. 'readers:' .. rid), rid, id, event)
end

-- Publishes JSON to all. The channel has no hash tag, so subscribers need not know the shards.
local function publish_text(channel, text)
  redis.call('PUBLISH', string.match(P, '^.-:') .. channel, text)
end

local function publish_to(channel, message) publish_text(channel, cjson.encode(message)) end

local function publish(rid, message)
  publish_to('request:' .. rid, message)
end
