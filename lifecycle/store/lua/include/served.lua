-- The known models of a shard or of the control slot, by when they were last served.
--- @include now numbers

local MODELS_LIMIT = 1000

-- Notes that these models are served now.
local function note_models(models)
  for _, model in ipairs(models) do
    if redis.call('ZADD', P .. 'models', secs(now), model) == 1 then
      local surplus = redis.call('ZCARD', P .. 'models') - MODELS_LIMIT
      if surplus > 0 then redis.call('ZREMRANGEBYRANK', P .. 'models', 0, surplus - 1) end
    end
  end
end
