-- A cancellation, as its worker and the subscribers of the request get it.
--- @include events

-- Notes for a worker's next reconciliation that it has to stop or kill a request.
local function note_cancellation(worker, rid)
  if redis.call('EXISTS', P .. 'fenced:' .. worker) == 0 then
    redis.call('SADD', P .. 'pending_cancellations:' .. worker, rid)
  end
end

-- Notifies a worker, and the subscribers of the request, of a cancellation that has been noted.
local function publish_cancellation(worker, rid, mode, reason)
  publish_to_worker(worker, {type = 'cancel', rid = rid, mode = mode, reason = reason})
  publish(rid, {type = 'cancel', mode = mode, reason = reason})
end
