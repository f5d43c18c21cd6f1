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
--- @include clock stream record readers

local texts = cjson.decode(words)

local function matches(record)
  if status ~= '' and record.status ~= status then return false end
  if #texts == 0 then return true end
  local all = string.lower(table.concat(
    {record.id, record.model, record.status, record.frontend or '', record.worker or '', record.owner or ''}, '\n'))
  for _, text in ipairs(texts) do
    if not string.find(all, text, 1, true) then return false end
  end
  return true
end

local found, scanned, now = {}, 0, clock(shift)
local range = order == 'newest' and 'ZREVRANGE' or 'ZRANGE'
for _, rid in ipairs(redis.call(range, P .. index, offset, offset + scan_limit - 1)) do
  scanned = scanned + 1
  local record = load_record(rid)
  if record and record.id and matches(record) then
    found[#found + 1] = {public_record(rid, record), live_readers(rid)}
    if #found == tonumber(limit) then break end
  end
end
return {secs(now), scanned, unpack(found)}
