"""The faults that are planted in what keeps replicas, and what they hold, apart from those that are gone."""

from __future__ import annotations

from tests.mutants.mutant import Mutant

_LUA = "lifecycle/store/lua/"
_INCLUDE = "lifecycle/store/lua/include/"

REPLICA_FAULTS = (
    Mutant(
        "an expiry does not set the fenced mark",
        _LUA + "expire.lua",
        "redis.call('SET', P .. 'fenced:' .. replica, '1', 'EX', DAY_SECS)",
        "",
        "append does not ask whether its worker is fenced",
    ),
    Mutant(
        "a lease is renewed although it was ended",
        _LUA + "reconcile_shard.lua",
        "if redis.call('EXISTS', P .. 'fenced:' .. replica) == 1 then return {'fenced'} end",
        "",
    ),
    Mutant(
        "a reap takes what another worker runs",
        _LUA + "reap.lua",
        "if record and record.status == 'running' and record.worker == replica then",
        "if record and record.status == 'running' then",
        "a reap takes what another worker runs",
    ),
    Mutant(
        "a reap does not count under the new owner",
        _LUA + "reap.lua",
        "  count_in(new_owner, {one}, record.status)\n",
        "",
        "a frontend's requests are not counted under their new owner",
    ),
    Mutant(
        "a fenced frontend admits",
        _LUA + "admit.lua",
        "  if is_fenced(frontend) then return {'fenced'} end",
        "",
    ),
    Mutant(
        "a worker that is refused as expired reports its end nevertheless",
        "lifecycle/execution/attempt.py",
        '        if why == "expired":',
        '        if why == "nothing":',
    ),
    Mutant(
        "a replica that comes back under another id does not check its ends",
        "lifecycle/replica/shard_lease.py",
        "        self._may_be_lost = True  # a primary",
        "        # a primary",
    ),
    Mutant(
        "a disconnect is not reported once it has been repeated for a lease",
        "lifecycle/tracking/reader_reports.py",
        "                if state.draining or state.has_left or state.id_for(rid) != own:\n                    raise\n",
        "                raise\n",
    ),
    Mutant(
        "readers that Redis has lost are not told again",
        "lifecycle/tracking/membership.py",
        "        self._readers.report_again(shard)\n",
        "",
    ),
    Mutant(
        "changes of the list of replicas that are lost are not looked for",
        _LUA + "roster.lua",
        "redis.call('ZSCORE', P .. 'changes', changed_replica) == changed_ms",
        "true",
    ),
)
