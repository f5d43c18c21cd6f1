-- What each time limit says when it ends a request.
local LIMITS = {
  queue = {'queue_timeout', 'No worker took the request within %s seconds'},
  first_token = {'first_token_timeout', 'No token was generated within %s seconds'},
  deadline = {'deadline', 'The request did not end within its deadline of %s seconds'},
}

local function limit_outcome(kind, record, last)
  return outcome_of('failed', LIMITS[kind][1], string.format(LIMITS[kind][2], record[kind .. '_limit_secs']), '', last)
end
