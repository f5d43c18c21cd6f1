"""The faults that are planted."""

from __future__ import annotations

from tests.mutants.mutant import Mutant
from tests.mutants.replica_faults import REPLICA_FAULTS

_LUA = "lifecycle/store/lua/"
_INCLUDE = "lifecycle/store/lua/include/"

_APPENDS = (
    Mutant(
        "append does not ask whether the request is still its worker's",
        _LUA + "append.lua",
        "  if run and nonce then\n",
        "  nonce = nonce or mark\n  if true then\n",
        "append does not ask whose request it is",
    ),
    Mutant(
        "append does not compare the nonce of the start",
        _LUA + "append.lua",
        "if nonce ~= '' and nonce ~= held then return nil, 'fenced' end",
        "",
    ),
    Mutant(
        "append does not ask whether its worker is fenced",
        _LUA + "append.lua",
        "if redis.call('EXISTS', P .. 'fenced:' .. worker) == 1 then return {'fenced'} end",
        "",
        "append does not ask whether its worker is fenced",
    ),
    Mutant(
        "append does not look for tokens that Redis has lost",
        _LUA + "append.lua",
        "if before ~= '' and stream_end(rid) < tonumber(before) then return nil, 'gone' end",
        "",
    ),
    Mutant(
        "append does not note the first token",
        _LUA + "append.lua",
        "      redis.call('HSETNX', P .. 'request:' .. rid, 'first_token_at', secs(now))\n",
        "",
        "a requeue joins the tokens of two answers",
    ),
)

_ENDS = (
    Mutant(
        "finish ends a request without looking whether it runs there",
        _LUA + "finish.lua",
        "if not record or ended or another or record.status ~= 'running' or record.worker ~= worker\n"
        "    or record.attempt ~= attempt then",
        "if not record then",
        "finish does not ask whether the request has ended",
    ),
    Mutant(
        "finish does not compare the nonce of the start",
        _LUA + "finish.lua",
        "local another = record and nonce ~= '' and record.start_nonce ~= nonce",
        "local another = false",
    ),
    Mutant(
        "finish takes the attempt before for its own",
        _LUA + "finish.lua",
        "or record.attempt ~= attempt then",
        "or tonumber(record.attempt) > tonumber(attempt) + 1 then",
    ),
    Mutant(
        "finish does not ask which worker runs the request",
        _LUA + "finish.lua",
        "or record.status ~= 'running' or record.worker ~= worker",
        "or record.status ~= 'running'",
        "finish does not ask whose request it is",
    ),
    Mutant(
        "finish takes no notice of a kill",
        _LUA + "finish.lua",
        "if record.cancel_mode == 'kill' or stopped then",
        "if stopped then",
        "finish takes no notice of a cancel",
    ),
    Mutant(
        "finish completes an answer with a hole",
        _LUA + "finish.lua",
        "  if redis.call('XLEN', P .. 'tokens:' .. rid) ~= expected then return {'incomplete', number} end\n",
        "",
        "finish does not look for a hole",
    ),
    Mutant(
        "finish completes an answer whose last tokens are missing",
        _LUA + "finish.lua",
        "if status == 'completed' and number ~= last then return {'incomplete', number} end",
        "",
        "finish does not look for a hole",
    ),
    Mutant(
        "the end is told to readers before it is known whether the worker may report it",
        _LUA + "finish.lua",
        "\n  if input_tokens ~= ''",
        "\n  push_event(rid, END_ID,\n"
        "    cjson.encode(outcome_of(status, error_type, message, finish_reason)))\n"
        "  if input_tokens ~= ''",
    ),
    Mutant(
        "an end in a merged call is written without the others'",
        _INCLUDE + "settlement.lua",
        "  for i, one in ipairs(ended) do\n    local rid, record",
        "  for i, one in ipairs({ended[1]}) do\n    local rid, record",
    ),
    Mutant(
        "an error of one request stops those beside it",
        _INCLUDE + "replies.lua",
        "  local is_done, reply, one = pcall(handle, first)\n",
        "  local is_done, reply, one = true, handle(first)\n",
    ),
    Mutant(
        "the answers to merged calls are mixed up",
        "lifecycle/store/merged_calls.py",
        "        for reply, own in zip(self._replies, values, strict=True):",
        "        for reply, own in zip(self._replies, reversed(values), strict=True):",
    ),
    Mutant(
        "calls of two shards are merged",
        "lifecycle/store/merged_calls.py",
        "        head = call.head\n",
        "        head = call.head[:1]\n",
    ),
    Mutant(
        "an end leaves the stream open",
        _INCLUDE + "terminal.lua",
        "  if not closed then close_stream(rid, ending) end\n  record.status",
        "  record.status",
        "an end leaves the stream open",
    ),
    Mutant(
        "an end is not counted out",
        _INCLUDE + "settlement.lua",
        "do run_for(some, count_out, frontend, some) end\n",
        "do end\n",
        "an end is not counted out",
    ),
    Mutant(
        "an end is counted out under another status",
        _INCLUDE + "terminal.lua",
        "  local one = {rid = rid, record = record, was = was,",
        "  local one = {rid = rid, record = record, was = 'running',",
        "an end is not counted out",
    ),
    Mutant(
        "an end is counted twice",
        _INCLUDE + "settlement.lua",
        "    totals[label] = (totals[label] or 0) + 1\n",
        "    totals[label] = (totals[label] or 0) + 2\n",
        "an end is counted twice",
    ),
    Mutant(
        "an end leaves the request in its queue",
        _INCLUDE + "terminal.lua",
        "  if was == 'queued' then leave_queue(record) end\n",
        "",
        "take starts a request that has ended",
    ),
    Mutant(
        "a fail ends what has ended",
        _LUA + "fail.lua",
        "if is_terminal(record) then return {'already', public_record(record)} end\n",
        "",
    ),
    Mutant(
        "a lost start is not reported by its worker",
        "lifecycle/execution/running.py",
        '            if ended is not None and ended.what in ("already", "fenced", "unknown"):\n',
        "            if ended is None:\n",
    ),
    Mutant(
        "a worker remembers no end",
        "lifecycle/execution/remembered_ends.py",
        "        self._reports[rid] = report\n",
        "",
    ),
    Mutant(
        "a frontend remembers no end",
        "lifecycle/tracking/owned_requests.py",
        "        self._ended[rid] = started\n",
        "",
    ),
)

_CANCELS = (
    Mutant(
        "a cancel is answered as confirmed before its worker has ended it",
        _INCLUDE + "cancelling.lua",
        "  publish_cancellation(record.worker, record.id, mode, reason)\n  return 'pending'",
        "  publish_cancellation(record.worker, record.id, mode, reason)\n  return 'terminal'",
        "a cancel is confirmed before its worker has ended it",
    ),
    Mutant(
        "a kill does not close the stream",
        _INCLUDE + "cancelling.lua",
        "if not closed then close_stream(record.id, ending) end",
        "",
        "a kill does not close the stream",
    ),
    Mutant(
        "a pending cancel is not noted for the heartbeat",
        _INCLUDE + "cancellation.lua",
        "    redis.call('SADD', P .. 'pending_cancellations:' .. worker, rid)\n",
        "",
    ),
    Mutant(
        "a pending cancel is not repeated by the heartbeat",
        _LUA + "reconcile_shard.lua",
        "'pending_cancellations:' .. replica, limit)) do",
        "'nothing:' .. replica, limit)) do",
    ),
    Mutant(
        "a requeue forgets a pending cancel",
        _INCLUDE + "retrying.lua",
        "if record.cancel_mode == 'kill' or record.cancel_mode == 'stop' then",
        "if record.cancel_mode == 'stop' then",
        "a requeue forgets a pending cancel",
    ),
)

_QUEUE = (
    Mutant(
        "an admission is repeated under another nonce",
        _LUA + "admit.lua",
        "if known[1] == nonce then return {'admitted', known[2]} end",
        "",
    ),
    Mutant(
        "take does not ask whether its worker is fenced",
        _LUA + "take.lua",
        "if redis.call('EXISTS', P .. 'fenced:' .. worker) == 1 then return {'fenced'} end",
        "",
        "take does not ask whether its worker is fenced",
    ),
    Mutant(
        "take does not ask whether the request is still queued",
        _INCLUDE + "start.lua",
        "  if request.status ~= 'queued' then",
        "  if not request.status then",
        "take starts a request that has ended",
    ),
    Mutant(
        "a repeated take takes more",
        _LUA + "take.lua",
        "if taken and tonumber(number) == tonumber(last_number) then",
        "if false then",
    ),
    Mutant(
        "take moves no count",
        _INCLUDE + "start.lua",
        "  for frontend, rids in pairs(moved) do count_moves(frontend, rids, 'queued', 'running') end\n",
        "",
        "take moves no count",
    ),
    Mutant(
        "take advances no virtual time",
        _INCLUDE + "scheduler.lua",
        "  local after = tonumber(secs(before + cost / weight_of(request)))\n",
        "  local after = reached\n",
    ),
    Mutant(
        "what is given back to an owner passes who is next",
        _INCLUDE + "cost.lua",
        "correct_cost(model, owner, by, true)",
        "correct_cost(model, owner, by)",
    ),
    Mutant(
        "a request that starts stays in its flow",
        _INCLUDE + "start.lua",
        "  remove(flow, rid, #body)\n",
        "",
    ),
    Mutant(
        "take begins anew behind the tokens of another attempt",
        _INCLUDE + "start.lua",
        "  if last > 0 and request.first_token_at and resumable ~= '1' then",
        "  if false then",
    ),
    Mutant(
        "what is queued again is put behind the others",
        _INCLUDE + "retrying.lua",
        "again, true, body_bytes(record.id))",
        "again, false, body_bytes(record.id))",
    ),
    Mutant(
        "an admission rings no bell",
        _LUA + "admit.lua",
        "\nring_workers()\n",
        "\n",
    ),
    Mutant(
        "a requeue moves no count",
        _INCLUDE + "retrying.lua",
        "  count_moves(record.frontend, {record.id}, 'running', 'queued')\n",
        "",
        "a requeue moves no count",
    ),
    Mutant(
        "a requeue joins the tokens of two answers",
        _INCLUDE + "retrying.lua",
        "  elseif (record.first_token_at and record.resumable ~= '1') or (",
        "  elseif (",
        "a requeue joins the tokens of two answers",
    ),
    Mutant(
        "an attempt more than allowed is made",
        _INCLUDE + "retrying.lua",
        "(uses_attempt and failures >= max_attempts)",
        "(uses_attempt and failures > max_attempts)",
    ),
)

_READERS = (
    Mutant(
        "a reader does not look for a gap",
        "lifecycle/tokens/reader.py",
        "            return item.first > self.number + 1\n",
        "            return False\n",
    ),
    Mutant(
        "a reader does not compare nonces in the stream",
        "lifecycle/tokens/read_start.py",
        "        if known and opened.nonce and known != opened.nonce:\n            return True\n",
        "",
        "a reader does not look whether the stream still has what it has read",
    ),
    Mutant(
        "a reader takes tokens of another start without looking at the stream",
        "lifecycle/tokens/reader.py",
        "item.attempt != self.attempt or item.nonce != self._start.nonce",
        "False",
    ),
)

_ORDER = (
    Mutant(
        "take serves the worst priority first",
        _INCLUDE + "front.lua",
        "redis.call('ZRANGE', P .. 'levels:' .. model, '0', LAST_LEVEL)",
        "redis.call('ZREVRANGE', P .. 'levels:' .. model, '0', LAST_LEVEL)",
    ),
    Mutant(
        "what leaves a queue stays counted as its owner's",
        _INCLUDE + "queue.lua",
        "  if redis.call('HINCRBY', P .. 'queued:' .. model, owner, by) <= 0 then",
        "  if tonumber(by) > 0 and redis.call('HINCRBY', P .. 'queued:' .. model, owner, by) <= 0 then",
    ),
)

_TREES = (
    Mutant(
        "a child goes on when its parent has ended badly",
        "lifecycle/replica/parent_checks.py",
        '                elif state != "live":\n',
        '                elif state == "nothing":\n',
    ),
    Mutant(
        "a child is forgotten when its parent is looked at once",
        _LUA + "claim_children.lua",
        "    redis.call('ZADD', due, secs(now + tonumber(check_secs)), rid)\n",
        "    redis.call('ZREM', due, rid)\n",
    ),
)

MUTANTS = (*_APPENDS, *_ENDS, *_CANCELS, *REPLICA_FAULTS, *_QUEUE, *_READERS, *_ORDER, *_TREES)
