#!lua flags=no-writes,allow-oom
-- list: reads one page of one shard's requests, newest first. It examines a bounded number, so the page may be short.
--         With an owner, the index of the owner's requests is read instead, unless fewer are inflight.
--         A frontend or worker is meant under all its ids: those that it takes in single shards begin with its own and `~`.
-- KEYS[1] shard prefix
-- ARGV    shift, index (`created` | `active`), upper (bound of created_at, '+inf' to begin), before (rid at that bound,
--         '' to begin), status, model, endpoint, frontend, worker, owner ('' each for any), limit, scan_limit
-- Returns {exhausted, created_at, rid, record…}: created_at and rid are upper and before of the next page.

local P = KEYS[1]
local shift, index, upper, before, status, model, endpoint, frontend, worker, owner,
  limit, scan_limit = unpack(ARGV)
--- @include numbers record

local wanted = {{'status', status}, {'model', model}, {'endpoint', endpoint}, {'frontend', frontend},
  {'worker', worker}, {'owner', owner}}
local MEMBERS = {frontend = true, worker = true}
local fields, values = {}, {}

local function replica_of(member) return string.match(member, '^[^~]*') end

for _, filter in ipairs(wanted) do
  local field, value = unpack(filter)
  if value ~= '' then fields[#fields + 1], values[#values + 1] = field, MEMBERS[field] and replica_of(value) or value end
end

-- Whole records are read of those only that match, because most of a page may not.
local function matching(rid)
  if #fields > 0 then
    local found = read_typed('HMGET', P .. 'request:' .. rid, unpack(fields))
    for i, value in ipairs(values) do
      local is = found[i]
      if is and MEMBERS[fields[i]] then is = replica_of(is) end
      if is ~= value then return nil end
    end
  end
  return load_record(rid)
end

local key = P .. index
local function size(of) return redis.call('ZCOUNT', of, '-inf', '+inf') end
if owner ~= '' and (index == 'created' or size(key) >= size(P .. 'owned:' .. owner)) then key = P .. 'owned:' .. owner end
local page = redis.call('ZREVRANGEBYSCORE', key, upper, '-inf', 'WITHSCORES', 'LIMIT', 0, scan_limit)
local found = {}
local last_score, last_rid = upper, before
for i = 1, #page, 2 do
  local rid, score = page[i], secs(tonumber(page[i + 1]))
  if not (before ~= '' and score == upper and rid >= before) then
    last_score, last_rid = score, rid
    local record = matching(rid)
    if record and (index == 'created' or not is_terminal(record)) then
      found[#found + 1] = public_record(record)
      if #found == tonumber(limit) then return {0, last_score, last_rid, unpack(found)} end
    end
  end
end
local exhausted = #page / 2 < tonumber(scan_limit) and 1 or 0
return {exhausted, last_score, last_rid, unpack(found)}
