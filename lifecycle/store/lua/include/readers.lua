-- The frontends that read a request. They are in `readers:<rid>`, and while it runs also in its worker's `running:`, so
-- that an append reads those of all its requests with one command.

-- Returns a value of `running:`. It begins with the nonce of the start, which is the usual mark of an append, and a space.
-- It is padded to more than 64 characters, because Redis then stores the hash as a table and not as a list that
-- is searched for each request.
local function noted_readers(frontends, nonce)
  return string.format('%-8s %-56s', nonce or '', table.concat(frontends, ' '))
end

-- Copies the frontends of a request, while it runs, to its worker's `running:`. Called after each change.
local function note_readers(record)
  if record.status ~= 'running' then return end
  local noted = noted_readers(redis.call('HKEYS', P .. 'readers:' .. record.id), record.start_nonce)
  redis.call('HSET', P .. 'running:' .. record.worker, record.id, noted)
end

-- Returns the number of HTTP readers at frontends that have not expired.
local function live_readers(rid)
  local total, flat = 0, redis.call('HGETALL', P .. 'readers:' .. rid)
  for i = 1, #flat, 2 do
    if tonumber(flat[i + 1]) > 0 and redis.call('EXISTS', P .. 'fenced:' .. flat[i]) == 0 then
      total = total + tonumber(flat[i + 1])
    end
  end
  return total
end
