#!lua
-- append: one flush of a worker: appends tokens of many requests, and sends frames to the frontends that read them.
-- KEYS[1] shard prefix
-- ARGV    shift, worker, then for each request: rid, id (<attempt>-<number of its last token>),
--         tokens (a JSON list of events), mark ('1' when it holds the request's first token that is no opening, else '0';
--         then the nonce of the attempt's start, which is not checked when it is missing; then, when Redis may have lost
--         data, '!' and the number of the token before these)
-- Returns the refused ones only, {index, why}…: 'gone' (there is no stream, it lacks tokens before these, or the Redis key
--         has another type), 'closed' (the request has ended or was killed), 'fenced' (the attempt was requeued, a later
--         one has begun, or Redis has lost the start of this one). A repeated entry is accepted and not sent again.
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
local runs = redis.call('HMGET', P .. 'running:' .. worker, unpack(rids))

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

-- Returns whether a mark that differs from that of the running start is acceptable, and whether the entry holds the first
-- token. The third value is the reason for a refusal.
local function read_mark(rid, mark, held)
  local first, nonce, before = string.match(mark, '^(%d)([^!]*)!?(%d*)$')
  if nonce ~= '' and nonce ~= string.sub(held, 2) then return nil, false, 'fenced' end
  if before ~= '' and stream_end(rid) < tonumber(before) then return nil, false, 'gone' end
  return true, first == '1'
end

for i = 3, #ARGV, 4 do
  local rid, id, tokens, mark = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
  local run = runs[(i + 1) / 4]
  local accepted, first, why, added = run, false, nil, nil
  if run and mark ~= string.sub(run, 1, 9) then accepted, first, why = read_mark(rid, mark, string.sub(run, 1, 9)) end
  if accepted then added = redis.pcall('XADD', P .. 'tokens:' .. rid, 'NOMKSTREAM', id, 't', tokens, 'at', at) end
  if type(added) == 'string' then
    local frontends = string.sub(run, 11)
    if first then
      redis.call('HSETNX', P .. 'request:' .. rid, 'first_token_at', secs(now))
      redis.call('ZREM', P .. 'deadlines', 'first_token|' .. rid)
    end
    if #tokens > PUSH_BYTES then tokens = '{"type":"unsent","id":"' .. id .. '"}' end
    if #tokens > LARGE_BYTES then
      local frame = '[["' .. rid .. '","' .. id .. '",' .. tokens .. ',"' .. string.sub(run, 2, 9) .. '"]]'
      for _, frontend in ipairs(living(frontends)) do
        redis.call('SPUBLISH', P .. 'inbox:' .. frontend, frame)
      end
    else
      local item = '["' .. rid .. '","' .. id .. '",' .. tokens .. ',"' .. string.sub(run, 2, 9) .. '"]'
      for _, frontend in ipairs(living(frontends)) do
        local frame = frames[frontend]
        if frame then frame[#frame + 1] = item else frames[frontend] = {item} end
      end
    end
  elseif not accepted and redis.call('EXISTS', P .. 'tokens:' .. rid) == 1 then
    refused[#refused + 1] = {(i - 3) / 4, why or why_refused(rid, id) or 'fenced'}
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
