-- Further limits of what waits for a model: of one owner, and of all owners together, in requests, tokens and bytes. What
-- requests admitted under such a limit have is counted in `shares:<model>`: see count_share.

-- Returns why a request of so many tokens and bytes may not be queued, nil if it may. `limits` are those of the owner's
-- requests, tokens and bytes, and of the model's, 0 for none; `depth` is how many requests of the owner wait. What waits
-- alone may have any size.
local function exceeded_limit(model, owner, depth, limits, tokens, bytes)
  local most = {}
  for number in string.gmatch(limits, '%d+') do most[#most + 1] = tonumber(number) end
  local held = redis.call('HMGET', P .. 'shares:' .. model, 't|' .. owner, 'b|' .. owner, 'n', 't', 'b')
  local function is_beyond(limit, number, added)
    number = tonumber(number or '0')
    return limit > 0 and number > 0 and number + added > limit
  end
  if is_beyond(most[1], depth, 1) or is_beyond(most[2], held[1], tokens) or is_beyond(most[3], held[2], bytes) then
    return 'queue_limit'
  end
  if is_beyond(most[4], held[3], 1) or is_beyond(most[5], held[4], tokens) or is_beyond(most[6], held[5], bytes) then
    return 'full_model'
  end
end
