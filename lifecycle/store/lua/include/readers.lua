-- Who reads a request: `readers:<rid>` says it. The frontends also stand in its worker's `running`, so that an append finds
-- those of all its requests in one look.

-- To be called after each change while the request runs. Returns the frontends.
-- Padded: with a value above 64 characters Redis keeps the hash as a table, not as a list to be searched for each request.
local function note_readers(rid, worker)
  local frontends = redis.call('HKEYS', P .. 'readers:' .. rid)
  redis.call('HSET', P .. 'running:' .. worker, rid, string.format('%-65s', table.concat(frontends, ' ')))
  return frontends
end

-- How many HTTP readers are attached at living frontends.
local function live_readers(rid)
  local total, flat = 0, redis.call('HGETALL', P .. 'readers:' .. rid)
  for i = 1, #flat, 2 do
    if tonumber(flat[i + 1]) > 0 and redis.call('EXISTS', P .. 'fenced:' .. flat[i]) == 0 then
      total = total + tonumber(flat[i + 1])
    end
  end
  return total
end
