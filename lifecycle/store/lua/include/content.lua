-- The content of a request: its body and its events. The record's `storage` says what becomes of it at the end.
-- `stored:<owner>` has the requests whose content is kept, as `<bytes>|<rid>` by the time at which they expire, and
-- `stored_bytes:<owner>` has the sum of those bytes. Above the owner's limit the oldest lose their content first.
--- @include commands now numbers record

local MEASURED_NODES = '64'  -- of a stream, whose average counts for the others: measuring each would cost too much
local ENTRY_BYTES = 256  -- an entry's estimated size, for a server without MEMORY USAGE
local NOT_MEASURED = 'permissions subcommand Unknown unknown'  -- in the errors of a server that lacks it or forbids it

local items_to_find = ''  -- ids of parts of the answer, separated by spaces; they lead to the request while it is kept

local removals_left = 32  -- of one call of a script, each costs about 20 microseconds; sweeps do the rest

local function remove_content(rid)
  redis.call('UNLINK', P .. 'body:' .. rid, P .. 'tokens:' .. rid)
end

local function content_bytes(rid)
  local tokens = unless_error(NOT_MEASURED, 'MEMORY', 'USAGE', P .. 'tokens:' .. rid, 'SAMPLES', MEASURED_NODES)
  if tokens == nil then tokens = redis.call('XLEN', P .. 'tokens:' .. rid) * ENTRY_BYTES end
  return redis.call('STRLEN', P .. 'body:' .. rid) + tokens
end

-- Removes a member of an owner's index, and its bytes from the sum.
local function uncount(owner, member)
  if redis.call('ZREM', P .. 'stored:' .. owner, member) == 0 then return end
  local sum = P .. 'stored_bytes:' .. owner
  if redis.call('DECRBY', sum, string.match(member, '^%d+')) <= 0 then redis.call('DEL', sum) end
end

-- Forgets an owner's expired content, and removes the oldest while there are more bytes than `limit` (0 for no limit).
-- The newest one stays, whatever its size: its readers may still be reading it.
-- Returns whether all is done.
local function make_room(owner, limit)
  local index = P .. 'stored:' .. owner
  local total = tonumber(redis.call('GET', P .. 'stored_bytes:' .. owner) or '0')
  while true do
    local oldest, expires_at, next_one = unpack(redis.call('ZRANGE', index, '0', '1', 'WITHSCORES'))
    if not oldest then return true end
    local expired = tonumber(expires_at) <= now
    if not expired and (limit == 0 or total <= limit or not next_one) then return true end
    if removals_left == 0 then return false end
    removals_left = removals_left - 1
    local bytes, rid = string.match(oldest, '^(%d+)|(.+)$')
    total = total - tonumber(bytes)
    uncount(owner, oldest)
    if not expired then
      remove_content(rid)
      if redis.call('EXISTS', P .. 'request:' .. rid) == 1 then
        redis.call('HSET', P .. 'request:' .. rid, 'storage', 'deleted')
      end
    end
  end
end

local function keep_content(record, ttl_ms)
  local rid, owner = record.id, record.owner or ''
  local bytes = string.format('%.0f', content_bytes(rid))
  set_field(record, 'stored_bytes', bytes)
  redis.call('ZADD', P .. 'stored:' .. owner, secs(now + retention), bytes .. '|' .. rid)
  redis.call('INCRBY', P .. 'stored_bytes:' .. owner, bytes)
  for _, key in ipairs({'body:' .. rid, 'tokens:' .. rid, 'stored:' .. owner, 'stored_bytes:' .. owner}) do
    redis.call('PEXPIRE', P .. key, ttl_ms)
  end
  for id in string.gmatch(items_to_find, '%S+') do
    redis.call('SET', P .. 'item:' .. id, rid, 'PX', ttl_ms)
  end
  local limit = record.stored_limit_bytes or '0'
  if not make_room(owner, tonumber(limit)) then redis.call('HSET', P .. 'overfull', owner, limit) end
end

-- Keeps or removes the content of a request that ends, as its `storage` says; that of most endpoints ('') is not
-- handled here. The events of a transient one stay for its readers of this moment.
local function settle_content(record, ttl_ms)
  if record.storage == 'kept' or record.storage == 'background' then
    keep_content(record, ttl_ms)
  elseif record.storage == 'transient' then
    redis.call('DEL', P .. 'body:' .. record.id)
    local secs_left = math.min(retention, tonumber(record.transient_secs or '0'))
    redis.call('PEXPIRE', P .. 'tokens:' .. record.id, string.format('%d', math.ceil(secs_left * 1000)))
  else
    remove_content(record.id)
  end
end
