#!lua
-- append: one flush of a worker: appends tokens of many requests, and sends frames to the frontends that read them.
-- KEYS[1] shard prefix
-- ARGV    shift, worker, then for each request: rid, id (<attempt>-<number of its last token>),
--         tokens (a JSON list of events), first ('1' when it holds the request's first token
--         that is no opening)
-- Returns the refused ones only, {index, why}…: 'gone' (there is no stream, or the Redis key has another type),
--         'closed' (the request has ended or was killed), 'fenced' (the attempt was requeued, a later one has begun, or
--         a failover of Redis has lost this worker's start). A repeated entry is accepted and not sent again.
--         {'fenced'} alone means that this worker has expired. An error of Redis itself is returned as it is; the
--         worker then repeats the flush.
-- There is no allow-oom: when the memory is full, tokens wait in their worker.

local LARGE_BYTES = 4096  -- above which an item gets a frame of its own: each new string costs Lua 1.4 ms a megabyte
local PUSH_BYTES = 1048576  -- above which an item is not pushed, but read: Redis drops a subscriber behind by 32 MB

local P = KEYS[1]
local shift, worker = ARGV[1], ARGV[2]
--- @include clock stream

if redis.call('EXISTS', P .. 'fenced:' .. worker) == 1 then return {'fenced'} end
local now = clock(shift)
local at = string.format('%.0f', now * 1000)
local refused, frames, known = {}, {}, {}

local rids = {}
for i = 3, #ARGV, 4 do rids[#rids + 1] = ARGV[i] end
local readers = redis.call('HMGET', P .. 'running:' .. worker, unpack(rids))

-- Returns those of a request's frontends that have not expired. Most requests of a worker have the same few.
local function living(frontends)
  if not known[frontends] then
    local found = {}
    for frontend in string.gmatch(frontends, '%S+') do
      if redis.call('EXISTS', P .. 'fenced:' .. frontend) == 0 then found[#found + 1] = frontend end
    end
    known[frontends] = found
  end
  return known[frontends]
end

local function why_refused(rid, id)
  local attempt, number = string.match(id, '(%d+)-(%d+)')
  local last_number, _, closed, last_attempt = stream_end(rid)
  if closed then return 'closed' end
  if tonumber(last_attempt) > tonumber(attempt) or tonumber(number) > last_number then return 'fenced' end
  return nil  -- a repetition of the same entry
end

for i = 3, #ARGV, 4 do
  local rid, id, tokens, first = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
  local frontends = readers[(i + 1) / 4]
  local added = frontends and redis.pcall('XADD', P .. 'tokens:' .. rid, 'NOMKSTREAM', id, 't', tokens, 'at', at)
  if type(added) == 'string' then
    if first == '1' then
      redis.call('HSETNX', P .. 'request:' .. rid, 'first_token_at', secs(now))
      redis.call('ZREM', P .. 'deadlines', 'first_token|' .. rid)
    end
    if #tokens > PUSH_BYTES then tokens = '{"type":"unsent","id":"' .. id .. '"}' end
    if #tokens > LARGE_BYTES then
      local frame = '[["' .. rid .. '","' .. id .. '",' .. tokens .. ']]'
      for _, frontend in ipairs(living(frontends)) do
        redis.call('SPUBLISH', P .. 'inbox:' .. frontend, frame)
      end
    else
      local item = '["' .. rid .. '","' .. id .. '",' .. tokens .. ']'
      for _, frontend in ipairs(living(frontends)) do
        local frame = frames[frontend]
        if frame then frame[#frame + 1] = item else frames[frontend] = {item} end
      end
    end
  elseif not frontends and redis.call('EXISTS', P .. 'tokens:' .. rid) == 1 then
    refused[#refused + 1] = {(i - 3) / 4, why_refused(rid, id) or 'fenced'}
  elseif not added then
    refused[#refused + 1] = {(i - 3) / 4, 'gone'}
  elseif string.find(added.err, 'equal or smaller', 1, true) or string.find(added.err, 'exhausted', 1, true) then
    local why = why_refused(rid, id)
    if why then refused[#refused + 1] = {(i - 3) / 4, why} end
  elseif string.find(added.err, 'WRONGTYPE', 1, true) then  -- this must not fail the other requests
    refused[#refused + 1] = {(i - 3) / 4, 'gone'}
  else  -- Redis refuses writes for now: the worker repeats the whole flush
    refused = added
    break
  end
end

for frontend, frame in pairs(frames) do
  redis.call('SPUBLISH', P .. 'inbox:' .. frontend, '[' .. table.concat(frame, ',') .. ']')
end
return refused
