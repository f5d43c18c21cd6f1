-- Runs: what a worker is told of the requests that its take has started.
--- @include commands stream record

-- Returns a request's body, empty for a Redis key of another type, which must not stop the takes of others.
local function read_body(rid) return unless_error('WRONGTYPE', 'GET', P .. 'body:' .. rid) or '' end

-- Returns what a worker needs to run a request. `base` is the number of the last token of earlier attempts.
local function run_of(request, base, body, length)
  return {request.id, request.model, request.attempt, tostring(base), body, request.cancel_mode or '',
    request.traceparent or '', request.created_at, request.needs or '', request.headers or '', request.endpoint,
    request.owner or '', length, request.priority or '0', request.preemptions or '0'}
end

-- Returns the runs of the worker's last take that are still its own. `rids` are separated by spaces.
local function repeated_runs(rids, start_nonce)
  local runs = {}
  for rid in string.gmatch(rids, '%S+') do
    local held = load_record(rid)
    if held and held.status == 'running' and held.worker == worker and held.start_nonce == start_nonce then
      runs[#runs + 1] = run_of(held, (stream_end(rid)), read_body(rid), redis.call('XLEN', P .. 'tokens:' .. rid))
    end
  end
  return runs
end
