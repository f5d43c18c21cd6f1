-- The end of a token stream.
-- Arguments of redis.call are strings, because formatting a number as a float costs as much as a small command.

local CLOSED = '18446744073709551615'  -- the largest part of an entry id
local END_ID = '18446744073709551615-18446744073709551615'  -- the largest id: its entry closes the stream

-- Returns the number of the last token, the time of the last entry (milliseconds), whether the stream is closed, and the
-- attempt of the last entry. `<attempt>-<CLOSED>` ends an attempt that was requeued; its field `g` is the number of the
-- last token. Every entry has a second field `at`, except the one that closes the stream.
local function stream_end(rid)
  local closed, key = false, P .. 'tokens:' .. rid
  local entry = redis.call('XREVRANGE', key, '+', '-', 'COUNT', '1')[1]
  if entry and entry[1] == END_ID then
    closed = true
    entry = redis.call('XREVRANGE', key, '+', '-', 'COUNT', '2')[2]
  end
  if not entry then return 0, nil, closed, '0' end
  local attempt, number = string.match(entry[1], '(%d+)-(%d+)')
  local _, value, _, at = unpack(entry[2])
  if number == CLOSED then number = value end  -- the field `g`
  return tonumber(number) or 0, at ~= '' and at or nil, closed, attempt
end

-- Closes an open token stream, so that no entry can follow. `ending` is an outcome as JSON.
local function close_stream(rid, ending)
  redis.call('XADD', P .. 'tokens:' .. rid, END_ID, 'e', ending)
end
