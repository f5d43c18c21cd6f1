-- Returns the outcome of a request that is past a time limit.
local function limit_outcome(kind, record, last)
  local error_type, message = unpack(({
    queue = {'queue_timeout', 'No worker took the request within %s seconds'},
    first_token = {'first_token_timeout', 'No token was generated within %s seconds'},
    deadline = {'deadline', 'The request did not end within its deadline of %s seconds'},
  })[kind])
  return outcome_of('failed', error_type, string.format(message, record[kind .. '_limit_secs']), '', last)
end
