#!lua flags=allow-oom
-- append: one flush of a worker: appends tokens of many requests, and sends frames to the frontends that read them.
-- KEYS[1] shard prefix
-- ARGV    shift, worker, then for each request: rid, id (<attempt>-<number of its last token>),
--         tokens (a JSON list of events), mark (the nonce of the attempt's start, which is not checked when it is missing;
--         then '+' when it holds the request's first token that is no opening; then, when Redis may have lost data, '!'
--         and the number of the token before these)
-- Returns the refused ones only, {index, why}…: 'gone' (there is no stream, it lacks tokens before these, or the Redis key
--         has another type), 'closed' (the request has ended or was killed), 'fenced' (the attempt was requeued, a later
--         one has begun, or Redis has lost the start of this one). A repeated entry is accepted and not sent again.
--         {'fenced'} alone means that this worker has expired. An error of Redis itself is returned as it is; the
--         worker then repeats the flush.
-- It runs although the memory is full: only what runs can come to its end, and so give memory back.

local LARGE_BYTES = 4096  -- above which an item gets a frame of its own: each new string costs Lua 1.4 ms a megabyte
local PUSH_BYTES = 1048576  -- above which an item is not pushed, but read: Redis drops a subscriber behind by 32 MB

local P = KEYS[1]
local shift, worker = ARGV[1], ARGV[2]
--- @include commands now numbers stream

if redis.call('EXISTS', P .. 'fenced:' .. worker) == 1 then return {'fenced'} end
local at = string.format('%d', now * 1000 + 0.5)
local refused, frames, known = {}, {}, {}

-- For many items these locals cost less than the globals and members of tables that they stand for.
local ARGV, append, sub, find, streams = ARGV, redis.pcall, string.sub, string.find, P .. 'tokens:'
local rids, count = {}, 0
for i = 3, #ARGV, 4 do
  count = count + 1
  rids[count] = ARGV[i]
end
local runs = redis.call('HMGET', P .. 'running:' .. worker, unpack(rids))

-- Returns those of a request's frontends that have not expired. Most requests of a worker have the same few.
local function living(frontends)
  local found = {}
  for frontend in string.gmatch(frontends, '%S+') do
    if redis.call('EXISTS', P .. 'fenced:' .. frontend) == 0 then found[#found + 1] = frontend end
  end
  known[frontends] = found
  return found
end

local function why_refused(rid, id)
  local attempt, number = string.match(id, '(%d+)-(%d+)')
  local last_number, _, closed, last_attempt = stream_end(rid)
  if closed then return 'closed' end
  if tonumber(last_attempt) > tonumber(attempt) or tonumber(number) > last_number then return 'fenced' end
  return nil  -- a repetition of the same entry
end

-- Reads a mark that is not just the nonce of the running start. Returns that nonce, and whether the entry holds the first
-- token; or nil and the reason why the entry is refused.
local function read_mark(rid, mark, held)
  local nonce, first, before = string.match(mark, '^([^+!]*)(%+?)!?(%d*)$')
  if nonce ~= '' and nonce ~= held then return nil, 'fenced' end
  if before ~= '' and stream_end(rid) < tonumber(before) then return nil, 'gone' end
  return held, first ~= ''
end

for i = 3, #ARGV, 4 do
  local rid, id, tokens, mark = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
  local run, nonce, first, added = runs[(i + 1) / 4], mark, nil, nil
  if run and sub(run, 1, 8) ~= mark then nonce, first = read_mark(rid, mark, sub(run, 1, 8)) end
  if run and nonce then
    -- Most flushes have no first token, so these are checked here.
    added = first and (refusal('HSETNX') or refusal('ZREM'))
      or append('XADD', streams .. rid, 'NOMKSTREAM', id, 't', tokens, 'at', at)
  end
  if type(added) == 'string' then
    local frontends = sub(run, 10)
    if first then
      redis.call('HSETNX', P .. 'request:' .. rid, 'first_token_at', secs(now))
      redis.call('ZREM', P .. 'deadlines', 'first_token|' .. rid)
    end
    if #tokens > PUSH_BYTES then tokens = '{"type":"unsent","id":"' .. id .. '"}' end
    if #tokens > LARGE_BYTES then
      local frame = '[["' .. rid .. '","' .. id .. '",' .. tokens .. ',"' .. nonce .. '"]]'
      for _, frontend in ipairs(known[frontends] or living(frontends)) do
        redis.call('SPUBLISH', P .. 'inbox:' .. frontend, frame)
      end
    else
      local item = '["' .. rid .. '","' .. id .. '",' .. tokens .. ',"' .. nonce .. '"]'
      for _, frontend in ipairs(known[frontends] or living(frontends)) do
        local frame = frames[frontend]
        if frame then frame[#frame + 1] = item else frames[frontend] = {item} end
      end
    end
  elseif not (run and nonce) and redis.call('EXISTS', streams .. rid) == 1 then
    refused[#refused + 1] = {(i - 3) / 4, first or why_refused(rid, id) or 'fenced'}
  elseif not added then
    refused[#refused + 1] = {(i - 3) / 4, 'gone'}
  elseif find(added.err, 'equal or smaller', 1, true) or find(added.err, 'exhausted', 1, true) then
    local why = why_refused(rid, id)
    if why then refused[#refused + 1] = {(i - 3) / 4, why} end
  elseif find(added.err, 'WRONGTYPE', 1, true) then  -- this must not fail the other requests
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
