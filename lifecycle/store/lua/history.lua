#!lua flags=no-writes,allow-oom
-- history: reads one page of a request's token stream. The page is bounded in bytes, and holds at least one entry.
-- KEYS[1] shard prefix
-- ARGV    shift (unused), rid, after (the entry id behind which the page begins), max_entries, max_bytes (of the entries'
--         values; the entry that reaches it is the last of the page, so one entry alone may exceed it)
-- Returns {exhausted ('1' when nothing follows), opening, entry…}, with the entries as XRANGE returns them. `opening` is the
--         entry that opens the attempt of `after`, or an empty list: the reader compares its nonce.

local P = KEYS[1]
local _, rid, after, max_entries, max_bytes = unpack(ARGV)
max_entries, max_bytes = tonumber(max_entries), tonumber(max_bytes)
--- @include stream

local attempt = string.match(after, '^(%d+)-')
local opening = {}
if attempt ~= '0' and after ~= END_ID then
  opening = redis.call('XRANGE', P .. 'tokens:' .. rid, attempt .. '-0', attempt .. '-' .. CLOSED, 'COUNT', '1')[1] or {}
end
local page, bytes = {'0', opening}, 0
local count = 1  -- to read at once: only while entries are small, so that little is read in vain
while after ~= END_ID do  -- nothing follows that entry, and Redis refuses a range behind it
  local entries = redis.call('XRANGE', P .. 'tokens:' .. rid, '(' .. after, '+', 'COUNT', count)
  for _, entry in ipairs(entries) do
    page[#page + 1] = entry
    after = entry[1]
    bytes = bytes + #entry[2][2]
    if after ~= END_ID and (bytes >= max_bytes or #page > max_entries + 1) then return page end
  end
  if #entries < count then break end
  count = bytes * 16 < max_bytes * (#page - 1) and 16 or 1
end
page[1] = '1'
return page
