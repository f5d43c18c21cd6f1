--- @include terminal

-- Returns the outcome of a request that is past a time limit, and says in the record that the limit ended it.
local function limit_outcome(kind, record, last)
  local error_type, message = unpack(({
    queue = {'queue_timeout', 'No worker took the request within %s seconds'},
    first_token = {'first_token_timeout', 'No token was generated within %s seconds'},
    deadline = {'deadline', 'The request did not end within its deadline of %s seconds'},
  })[kind])
  record.ended_by_limit = error_type
  return outcome_of('failed', error_type, string.format(message, record[kind .. '_limit_secs']), '', last)
end
