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

-- Adds to the parts of a frame what tells an event of a request and, if there are any, the tokens `before` it: {entry id,
-- JSON, nonce of their start, how many they are}. Instead of tokens that are apart, their item has their number.
-- Lua hashes each string that it puts together, so the parts become one at the end.
local function add_items(parts, rid, id, event, before, is_apart)
  local n = #parts
  if n > 0 then
    n = n + 1
    parts[n] = ','
  end
  if before then
    parts[n + 1], parts[n + 2], parts[n + 3], parts[n + 4], parts[n + 5] = '["', rid, '","', before[1], '",'
    parts[n + 6], parts[n + 7], parts[n + 8], parts[n + 9] = before[is_apart and 4 or 2], ',"', before[3], '"],'
    n = n + 9
  end
  parts[n + 1], parts[n + 2], parts[n + 3], parts[n + 4], parts[n + 5] = '["', rid, '","', id, '",'
  for i, part in ipairs(event) do parts[n + 5 + i] = part end
  parts[#parts + 1] = ']'
end

local function frame_of(parts) return '[' .. table.concat(parts) .. ']' end

-- Sends one frame to each of these frontends that has not expired, with the items of an event, given in parts, and of
-- the tokens `before` it. Long tokens are a message of their own behind {bytes, items}.
local function push(frontends, rid, id, event, before)
  local apart, parts = before and #before[2] > APART_BYTES and before[2], {}
  add_items(parts, rid, id, event, before, apart)
  local frame = frame_of(parts)
  if apart then frame = string.format('{"bytes":%d,"items":', #apart) .. frame .. '}' end
  for _, frontend in ipairs(frontends) do send(frontend, frame, apart) end
end

-- Sends an event to each frontend that reads `rid`.
local function push_event(rid, id, event)
  push(redis.call('HKEYS', P .. 'readers:' .. rid), rid, id, {event})
end

-- Publishes JSON to all. The channel has no hash tag, so subscribers need not know the shards.
local function publish_text(channel, text)
  redis.call('PUBLISH', string.match(P, '^.-:') .. channel, text)
end

local function publish_to(channel, message) publish_text(channel, cjson.encode(message)) end

local function publish(rid, message) publish_to('request:' .. rid, message) end

-- Publishes a message to a worker. It has one channel under all its ids: those that it takes in single shards begin with its
-- own, followed by `~`.
local function publish_to_worker(worker, message) publish_to('worker:' .. string.match(worker, '^[^~]*'), message) end

--- @inner
