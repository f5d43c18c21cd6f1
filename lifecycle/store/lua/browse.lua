#!lua flags=no-writes,allow-oom
-- browse: reads requests from either end of an index, for a table: with live progress and readers, without the body.
-- KEYS[1] shard prefix
-- ARGV    shift, index (`active` | `expiries`), order (`oldest` | `newest`), offset, scan_limit, limit, status ('' for
--         any), words (JSON list of lower-case texts, each of which is in the id, model, status, frontend, worker or
--         owner)
-- Returns {now, scanned, row…}: scanned is how many members of the index were examined, fewer than scan_limit at its
--         end; a row is {record, readers}.

local P = KEYS[1]
local shift, index, order, offset, scan_limit, limit, status, words = unpack(ARGV)
--- @include now numbers record readers

local texts = cjson.decode(words)

-- Whole records are read of those only that match, because most may not.
local function matching(rid)
  if #texts > 0 or status ~= '' then
    local fields = read_typed('HMGET', P .. 'request:' .. rid, 'model', 'status', 'frontend', 'worker', 'owner')
    if not fields[1] or status ~= '' and fields[2] ~= status then return nil end
    local all = string.lower(table.concat(
      {rid, fields[1], fields[2], fields[3] or '', fields[4] or '', fields[5] or ''}, '\n'))
    for _, text in ipairs(texts) do
      if not string.find(all, text, 1, true) then return nil end
    end
  end
  local record = load_record(rid)
  return record and record.model and record
end

local found, scanned = {}, 0
local range = order == 'newest' and 'ZREVRANGE' or 'ZRANGE'
for _, member in ipairs(redis.call(range, P .. index, offset, offset + scan_limit - 1)) do
  scanned = scanned + 1
  local rid = string.match(member, '^[^|]+')
  local record = matching(rid)
  if record then
    found[#found + 1] = {public_record(record), live_readers(rid)}
    if #found == tonumber(limit) then break end
  end
end
return {secs(now), scanned, unpack(found)}
