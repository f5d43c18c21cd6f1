-- Telling readers and subscribers. What is told here has been written durably before, in the same script.


-- One frame for each frontend that reads `rid`: [[rid, entry id, event]]. Dead frontends get nothing.
-- `before`: an item and its comma, which go ahead in the same frame.
local function push_event(rid, id, event, before)
  local frame = '[' .. (before or '') .. '["' .. rid .. '","' .. id .. '",' .. event .. ']]'
  for _, frontend in ipairs(redis.call('HKEYS', P .. 'readers:' .. rid)) do
    if redis.call('EXISTS', P .. 'dead:' .. frontend) == 0 then
      redis.call('SPUBLISH', P .. 'inbox:' .. frontend, frame)
    end
  end
end

-- The channel carries no hash tag, so that subscribers need not know the shards.
local function publish(rid, message)
  local namespace = string.match(P, '^(.-):{')
  redis.call('PUBLISH', namespace .. ':request:' .. rid, cjson.encode(message))
end
