-- Messages to readers and subscribers. Their content was written durably before, by the same script.

-- Returns the item of a frame that tells an event of a request.
local function item_of(rid, id, event) return '["' .. rid .. '","' .. id .. '",' .. event .. ']' end

-- Sends a frame, which is a list of items, to a frontend that has not expired; and then its tokens, if they are apart.
local function send(frontend, frame, tokens)
  if redis.call('EXISTS', P .. 'fenced:' .. frontend) == 0 then
    redis.call('SPUBLISH', P .. 'inbox:' .. frontend, frame)
    if tokens then redis.call('SPUBLISH', P .. 'inbox:' .. frontend, tokens) end
  end
end

local APART_BYTES = 4096  -- above which tokens are sent apart: Lua copies and hashes each string that it puts together

-- Sends one frame [[rid, entry id, event]] to each of these frontends that has not expired.
-- `before` are tokens {entry id, JSON, nonce of their start, how many they are}, whose item comes first in the same
-- frame. Long ones are a message of their own behind {bytes, items}, in which their item has their number instead.
local function push(frontends, rid, id, event, before)
  local frame, apart
  if not before then
    frame = '[["' .. rid .. '","' .. id .. '",' .. event .. ']]'
  elseif #before[2] <= APART_BYTES then
    frame = '[["' .. rid .. '","' .. before[1] .. '",' .. before[2] .. ',"' .. before[3]
      .. '"],["' .. rid .. '","' .. id .. '",' .. event .. ']]'
  else
    apart = before[2]
    frame = string.format('{"bytes":%d,"items":[["', #apart) .. rid .. '","' .. before[1] .. '",' .. before[4] .. ',"'
      .. before[3] .. '"],["' .. rid .. '","' .. id .. '",' .. event .. ']]}'
  end
  for _, frontend in ipairs(frontends) do send(frontend, frame, apart) end
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
