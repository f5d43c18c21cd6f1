-- Commands: which errors of one are expected, and which commands the user must be allowed to run.

-- Runs a command and returns its reply, or nil for an error whose text has one of these words. Every other error is
-- raised: what Redis refuses to do is not what it does not know.
local function unless_error(expected, ...)
  local reply = redis.pcall(...)
  if type(reply) ~= 'table' or not reply.err then return reply end
  for word in string.gmatch(expected, '%S+') do
    if string.find(reply.err, word, 1, true) then return nil end
  end
  return redis.call(...)
end

-- Returns whether the user may run a command with the key P. fakeredis has no users, and lacks the check. Each further
-- argument would make it slower.
local is_permitted = redis.acl_check_cmd or function() return true end

-- Returns the error with which Redis refuses a command to a user who may not run it, nil when it is allowed.
local function refusal(command)
  if is_permitted(command, P) then return nil end
  return {err = "NOPERM this user has no permissions to run the '" .. string.lower(command) .. "' command"}
end

-- Raises an error unless the user may run a command. A script calls it for its commands before the first write, because
-- nothing is rolled back when a later one is refused. Whatever else Redis may refuse, such as writes when the memory is
-- full, it refuses before the first write by itself. Each check costs about two thirds of a small command. So the scripts
-- that every request needs name what they always run beside their first write, with `--- @permit COMMAND…`, and the
-- others have `--- @permit`: see script_loader.py.
local function require_command(command)
  local refused = refusal(command)
  if refused then error(refused) end
end
