#!lua flags=no-writes,allow-oom
-- list: reads one page of one shard's requests, newest first. It examines a bounded number, so the page may be short.
-- KEYS[1] shard prefix
-- ARGV    shift, index (`created` | `active`), upper (bound of created_at, '+inf' to begin), before (rid at that bound,
--         '' to begin), status, model, endpoint, frontend, worker, owner ('' each for any), limit, scan_limit
-- Returns {exhausted, created_at, rid, record…}: created_at and rid are upper and before of the next page.

local P = KEYS[1]
local shift, index, upper, before, status, model, endpoint, frontend, worker, owner,
  limit, scan_limit = unpack(ARGV)
--- @include clock stream record

local wanted = {{'status', status}, {'model', model}, {'endpoint', endpoint}, {'frontend', frontend},
  {'worker', worker}, {'owner', owner}}
local function matches(record)
  for _, filter in ipairs(wanted) do
    if filter[2] ~= '' and record[filter[1]] ~= filter[2] then return false end
  end
  return true
end

local page = redis.call('ZREVRANGEBYSCORE', P .. index, upper, '-inf', 'WITHSCORES', 'LIMIT', 0, scan_limit)
local found = {}
local last_score, last_rid = upper, before
for i = 1, #page, 2 do
  local rid, score = page[i], secs(tonumber(page[i + 1]))
  if not (before ~= '' and score == upper and rid >= before) then
    last_score, last_rid = score, rid
    local record = load_record(rid)
    if record and matches(record) then
      found[#found + 1] = public_record(rid, record)
      if #found == tonumber(limit) then return {0, last_score, last_rid, unpack(found)} end
    end
  end
end
local exhausted = #page / 2 < tonumber(scan_limit) and 1 or 0
return {exhausted, last_score, last_rid, unpack(found)}
