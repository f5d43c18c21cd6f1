-- The outcomes of requests, which readers get at the end.

local function outcome_of(status, error_type, message, finish_reason)
  return {type = 'end', status = status, error_type = error_type, message = message, finish_reason = finish_reason or ''}
end

-- Returns the outcome of a request whose cancel was confirmed.
local function cancelled_outcome(record)
  local reason = record.cancel_reason
  if not reason or reason == '' then reason = 'cancelled' end
  return outcome_of('cancelled', 'cancelled', reason)
end

local function lost_outcome()
  return outcome_of('failed', 'worker_lost', 'Disconnected: Stream ended before generation completed')
end

-- Returns the outcome of a request that is past a time limit, and says in the record that the limit ended it.
local function limit_outcome(kind, record)
  local error_type, message = unpack(({
    queue = {'queue_timeout', 'No worker took the request within %s seconds'},
    first_token = {'first_token_timeout', 'No token was generated within %s seconds'},
    deadline = {'deadline', 'The request did not end within its deadline of %s seconds'},
  })[kind])
  record.ended_by_limit = error_type
  return outcome_of('failed', error_type, string.format(message, record[kind .. '_limit_secs']))
end
