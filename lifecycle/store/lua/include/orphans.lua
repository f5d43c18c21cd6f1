-- Orphans: the events that come while the client is gone and nobody reads, or after a cancel was requested. The record's
-- field `orphan_from` is the number of the last event before them, and `orphan_events` counts those of earlier absences.
-- The end of the request adds the last ones.
--- @include stream

-- Counts the events that follow as orphans, unless they are counted already.
local function begin_orphans(rid, record)
  if record.orphan_from then return end
  record.orphan_from = tostring((stream_end(rid)))
  redis.call('HSET', P .. 'request:' .. rid, 'orphan_from', record.orphan_from)
end

-- Counts no further events as orphans: somebody reads again.
local function end_orphans(rid, record)
  if not record.orphan_from then return end
  local events = math.max(0, stream_end(rid) - tonumber(record.orphan_from))
  redis.call('HINCRBY', P .. 'request:' .. rid, 'orphan_events', tostring(events))
  redis.call('HDEL', P .. 'request:' .. rid, 'orphan_from')
end
