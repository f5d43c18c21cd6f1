-- Orphans: the events that come while the client is gone and nobody reads, or after a cancel was requested. The record's
-- field `orphan_from` is the number of the last event before them, and `orphan_events` counts those of earlier absences.
-- The end of the request adds the last ones.
--- @include stream record

-- Counts the events that follow as orphans, unless they are counted already.
local function begin_orphans(record)
  if record.orphan_from then return end
  set_field(record, 'orphan_from', tostring((stream_end(record.id))))
end

-- Counts no further events as orphans: somebody reads again.
local function end_orphans(record)
  if not record.orphan_from then return end
  local events = math.max(0, stream_end(record.id) - tonumber(record.orphan_from))
  redis.call('HINCRBY', P .. 'request:' .. record.id, 'orphan_events', tostring(events))
  redis.call('HDEL', P .. 'request:' .. record.id, 'orphan_from')
end
