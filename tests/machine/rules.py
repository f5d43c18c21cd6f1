"""Random histories. Every call may come twice, and any past call may come again, however stale it is by then."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any, ClassVar, TypeVar

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from lifecycle.settings import Settings
from lifecycle.store.results import Failure
from lifecycle.store.transitions import Store
from lifecycle.types import Role
from tests.leaks import assert_no_leaks, clear
from tests.machine.actual import Actual
from tests.machine.compare import Comparison
from tests.machine.drawing import (
    LEASE_SECS,
    LONGEST_TICKS,
    MAX_ATTEMPTS,
    MODELS,
    MOST_INFLIGHT,
    MOST_REQUESTS,
    OUTCOMES,
    QUEUE_BYTES,
    QUEUE_LIMIT,
    SETTINGS,
    TICK_SECS,
    accepts,
    calls,
    failures,
    frontends,
    resumable,
    slots,
    taken_slots,
    twice,
    workers,
)
from tests.machine.lost_starts import LostStartRules
from tests.machine.reference import ReferenceModel
from tests.machine.tree_rules import TreeRules
from tests.machine.words import Call, Run, Slot

T = TypeVar("T")
STEPS = 40


def run_machine(open_store: Callable[[Settings], Store], *, examples: int) -> None:
    """Fixed seeds: the same histories each time. Not shrunk: what Redis chooses itself (who inherits, in which order
    it lists a set) differs from run to run, and a history that is short already says more than a flaky shorter one."""
    machine = type("Machine", (LifecycleMachine,), {"open_store": staticmethod(open_store)})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=STEPS,
            derandomize=True,
            database=None,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )


class LifecycleMachine(LostStartRules, TreeRules, RuleBasedStateMachine):
    """Subclasses say which server: `open_store` is called in the machine's own event loop."""

    open_store: ClassVar[Callable[[Settings], Store]]

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.store = self.run(self._open())
        self.actual = Actual(self.store)
        self.reference = ReferenceModel(
            lease_secs=LEASE_SECS, queue_limit=QUEUE_LIMIT, queue_bytes=QUEUE_BYTES, max_attempts=MAX_ATTEMPTS
        )
        self.comparison = Comparison(self.actual, self.reference, MODELS)
        self.slots = {f"f{i}": Slot(Role.FRONTEND) for i in range(3)} | {f"w{i}": Slot(Role.WORKER) for i in range(2)}
        self.replicas: dict[str, Role] = {}
        self.takes: Counter[str] = Counter()
        self.runs: list[Run] = []
        self.past: list[Callable[[], None]] = []
        for name in self.slots:
            self.heartbeat(name)

    async def _open(self) -> Store:
        return type(self).open_store(SETTINGS)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(work)

    def replica(self, slot: str) -> str:
        return f"{slot}.{self.slots[slot].generation}"

    def both(self, name: str, *args: Any, times: int = 1) -> Any:
        """Calls the script and the reference model, and remembers the call, so that it can come again later."""

        def call() -> Any:
            found = self.run(getattr(self.actual, name)(*args))
            expected = getattr(self.reference, name)(*args)
            assert found == expected, f"{name}{args} answered {found}, not {expected}"
            return found

        self.past.append(call)
        answers = [call() for _ in range(times)]
        return answers[0]

    # what a frontend and its clients do

    @initialize(calls=st.lists(calls, min_size=3, max_size=3))
    def requests_run(self, calls: list[Call]) -> None:
        """Most of what can go wrong needs a request that runs."""
        for call in calls:
            self.admit(call, 1)
        self.redis_is_as_the_reference_model()
        for worker in ("w0", "w1"):
            self.take(worker, 2, True, ("*",), 1)

    @precondition(lambda self: len(self.inflight()) < MOST_INFLIGHT and len(self.reference.requests) < MOST_REQUESTS)
    @rule(call=calls, times=twice)
    def admit(self, call: Call, times: int) -> None:
        rid = f"r{len(self.reference.requests)}"
        _, labels, *how = call
        args = (labels, self.replica(call.frontend), *how)
        self.both("admit", rid, "nonce", *args, times=times)
        if rid in self.reference.requests:
            assert self.both("admit", rid, "other", *args) == ("exists",)

    @precondition(lambda self: self.reference.requests)
    @rule(data=st.data(), frontend=frontends, readers=st.sampled_from((0, 1, 2)), times=twice)
    def attach(self, data: st.DataObject, frontend: str, readers: int, times: int) -> None:
        self.both("attach", self.some_rid(data), self.replica(frontend), readers, times=times)

    @precondition(lambda self: self.reference.requests)
    @rule(
        data=st.data(),
        frontend=frontends,
        admitting=st.booleans(),
        readers=st.sampled_from((0, 0, 1)),
        connection=st.sampled_from(("closed_unexpectedly", "closed_unexpectedly", "closed_gracefully")),
        times=twice,
    )
    def disconnect(
        self, data: st.DataObject, frontend: str, admitting: bool, readers: int, connection: str, times: int
    ) -> None:
        rid = self.some_rid(data)
        name = self.reference.requests[rid].frontend if admitting else self.replica(frontend)
        self.both("disconnect", rid, name, readers, connection, admitting, times=times)

    @precondition(lambda self: self.reference.requests)
    @rule(data=st.data(), how=st.sampled_from(("stop", "kill", "fail")), seen=st.sampled_from((None, 0)), times=twice)
    def end(self, data: st.DataObject, how: str, seen: int | None, times: int) -> None:
        rid = self.some_rid(data)
        if how == "fail":
            self.both("fail", rid, "response_timeout", seen, times=times)
        else:
            self.both("cancel", rid, how, times=times)

    @precondition(lambda self: self.reference.requests)
    @rule(data=st.data(), times=twice)
    def delete_content(self, data: st.DataObject, times: int) -> None:
        self.both("delete_content", self.some_rid(data), times=times)

    # what a worker does

    @rule(worker=workers, slots=taken_slots, resumable=resumable, accepts=accepts, times=twice)
    def take(self, worker: str, slots: int, resumable: bool, accepts: tuple[str, ...], times: int) -> None:
        """One of the dead that has not heard of it takes too, and is refused."""
        name = self.replica(worker)
        self.takes[name] += 1
        number = self.takes[name]
        models = MODELS if number % 2 else MODELS[::-1]
        answer = self.both("take", name, number, models, slots, resumable, accepts, times=1)
        for _ in range(times - 1):
            repeated = self.both("take", name, number, models, slots, resumable, accepts)
            assert repeated[:2] == answer[:2], "a repetition brings the same"
        for rid, attempt, base, _ in answer[1] if answer[0] == "ok" else ():
            self.runs.append(Run(rid, name, attempt, base))

    take_too = take

    @precondition(lambda self: self.runs)
    @rule(data=st.data(), counts=st.tuples(st.integers(1, 2), st.integers(0, 2)), times=twice)
    def append(self, data: st.DataObject, counts: tuple[int, int], times: int) -> None:
        """One flush of one worker: up to two of its runs, whatever has become of them."""
        first = self.some_run(data)
        others = [r for r in self.runs if r.worker == first.worker and r is not first]
        runs = [first, *(others[:1] if counts[1] else [])]
        pieces = [run.piece(count) for run, count in zip(runs, counts, strict=False)]
        refused = self.both("append", first.worker, pieces, times=times)
        indexes = range(len(runs)) if refused == ("fenced",) else [index for index, _ in refused]
        for index, run in enumerate(runs):
            if index not in indexes:
                run.number = pieces[index].number

    @precondition(lambda self: self.runs)
    @rule(
        data=st.data(),
        outcome=st.sampled_from(OUTCOMES),
        remainder=st.integers(0, 2),
        lost=st.sampled_from((0, 0, 1, -1)),
        times=twice,
    )
    def finish(self, data: st.DataObject, outcome: tuple[str, str, str], remainder: int, lost: int, times: int) -> None:
        """`lost`: a token before the remainder has not been appended; or its first has been, and nobody heard of it."""
        run = self.some_run(data)
        lost = max(lost, -run.number, -remainder)
        piece = run.piece(remainder, after=lost) if remainder else None
        last = run.number + lost + remainder
        self.both("finish", run.rid, run.worker, run.attempt, outcome, last, piece, times=times)

    # More often than the rest: without tokens and ends there is little to get wrong.
    append_too = append_as_well = append
    finish_too = finish
    disconnect_too = disconnect

    @precondition(lambda self: self.runs)
    @rule(data=st.data(), failure=failures, times=twice)
    def requeue(self, data: st.DataObject, failure: Failure | None, times: int) -> None:
        run = self.some_run(data)
        self.both("requeue_attempt", run.rid, run.worker, run.attempt, failure, times=times)

    # membership and time

    @rule(data=st.data(), slot=slots, listed=st.booleans())
    def reconcile_shard(self, data: st.DataObject, slot: str, listed: bool) -> None:
        rids = data.draw(st.lists(st.sampled_from(("r0", "r1", "gone")), unique=True)) if listed else None
        self.both("reconcile_shard", self.replica(slot), self.slots[slot].role, rids)
        self.heartbeat(slot)

    def heartbeat(self, slot: str) -> None:
        """An expired replica is refused, and comes back under a new id."""
        self.slots[slot].silent = False
        if not self._send_heartbeat(self.replica(slot)):
            self.slots[slot].generation += 1
            assert self._send_heartbeat(self.replica(slot))

    def _send_heartbeat(self, name: str) -> bool:
        role = self.slots[name.partition(".")[0]].role
        self.replicas[name] = role
        if role == Role.FRONTEND:
            self.run(self.actual.listen(name))
        found = self.run(self.actual.heartbeat(name, role, MODELS if role == Role.WORKER else ()))
        assert found == self.reference.members.heartbeat(name, role)
        return found

    @precondition(lambda self: self.reference.members.now < LONGEST_TICKS * TICK_SECS)
    @rule(away=st.sampled_from((False, False, False, True)))
    def time_passes(self, away: bool) -> None:
        """With `away`, Redis was away for longer than a lease: no heartbeat was possible, so no replica expires."""
        if away:
            self._advance(LEASE_SECS + TICK_SECS)
            return
        self._advance(TICK_SECS)
        for slot, state in self.slots.items():
            if not state.silent and self.replica(slot) not in self.reference.members.expired_replicas:
                self._send_heartbeat(self.replica(slot))

    def _advance(self, secs: int) -> None:
        self.reference.members.now += secs
        self.store.clock_shift_secs = self.reference.members.now

    @precondition(lambda self: self.reference.members.now < LONGEST_TICKS * TICK_SECS)
    @rule(slot=slots, leaves=st.booleans(), reap=st.booleans())
    def death(self, slot: str, leaves: bool, reap: bool) -> None:
        """A replica leaves, or its lease runs out while the others send heartbeats. It is reaped now or later."""
        if leaves:
            self.expire(self.replica(slot))
        else:
            self.slots[slot].silent = True
            for _ in range(LEASE_SECS // TICK_SECS):
                self.time_passes(False)
            self.expire("")
        if reap:
            self.reap()

    def expire(self, leaving: str) -> None:
        expired = self.reference.members.expire(leaving)
        assert self.run(self.actual.expire(leaving)) == expired
        self.reference.dead |= expired
        for queue in self.reference.queues.models.values():
            queue.waiting = [worker for worker in queue.waiting if worker not in self.reference.dead]

    @precondition(lambda self: self.reference.members.pending_cleanup or self.reference.dead)
    @rule()
    def reap(self) -> None:
        """Reap the expired replicas. Those that have been reaped are reaped again, as by a slow reaper."""
        self.expire("")
        for name in [*self.reference.members.pending_cleanup, *sorted(self.reference.dead)]:
            self._reap(name, self.replicas[name])

    def _reap(self, name: str, role: Role) -> None:
        if role == Role.FRONTEND:
            self.run(self.comparison.hear(name))
        running: list[bytes] = self.run(self.store.command("HKEYS", f"{self.actual.prefix}running:{name}"))
        found = self.run(self.actual.reap(name, role))
        find_new_owner = {rid: self._owner(rid) for rid in self.reference.requests}
        expected = self.reference.reap(name, role, [rid.decode() for rid in running], find_new_owner)
        assert found == expected, f"reap of {name} answered {found}, not {expected}"
        if found[0]:
            self.reference.members.pending_cleanup.pop(name, None)

    def _owner(self, rid: str) -> str:
        owner: bytes = self.run(self.store.command("HGET", f"{self.actual.prefix}request:{rid}", "frontend"))
        return owner.decode()

    @rule(unserved=st.sampled_from(((), (), (), ("a",))), times=twice)
    def sweep(self, unserved: tuple[str, ...], times: int) -> None:
        self.both("sweep", unserved, times=times)

    @precondition(lambda self: self.past)
    @rule(data=st.data())
    def a_past_call_comes_again(self, data: st.DataObject) -> None:
        self.past[data.draw(st.integers(0, len(self.past) - 1))]()

    def inflight(self) -> list[str]:
        return [r.rid for r in self.reference.requests.values() if not r.terminal]

    def some_rid(self, data: st.DataObject) -> str:
        """One that has not ended is likelier."""
        return data.draw(st.sampled_from(self.inflight() * 3 + list(self.reference.requests)))

    def some_run(self, data: st.DataObject) -> Run:
        """One that goes on is likelier."""
        live = [run for run in self.runs if not self.reference.requests[run.rid].terminal]
        return data.draw(st.sampled_from(live * 3 + self.runs))

    # what must hold

    @invariant()
    def redis_is_as_the_reference_model(self) -> None:
        by_role = {role: [n for n, r in self.replicas.items() if r == role] for role in Role}
        self.run(self.comparison.check(by_role[Role.FRONTEND], by_role[Role.WORKER]))

    def teardown(self) -> None:
        try:
            if sys.exc_info()[0] is None:  # else it would hide what has failed
                self._everything_ends()
        finally:
            self.run(self.actual.close())
            self.run(clear(self.store.commands, self.store.settings.namespace))
            self.run(self.store.commands.aclose())
            self.loop.close()

    def _everything_ends(self) -> None:
        """All replicas die, one frontend comes: every request ends, and nothing is left."""
        for slot in self.slots.values():
            slot.silent = True
        self.slots["f9"] = Slot(Role.FRONTEND)
        self.heartbeat("f9")
        for _ in range(3 * LEASE_SECS // TICK_SECS):
            self._advance(TICK_SECS)
            self._send_heartbeat("f9.0")
            self.expire("")
        self.reap()
        self.both("sweep", ())
        self.redis_is_as_the_reference_model()
        self.both("sweep", MODELS)
        self.redis_is_as_the_reference_model()
        assert not self.reference.members.pending_cleanup
        assert all(r.terminal for r in self.reference.requests.values()), "a request that never ends"
        self.run(assert_no_leaks(self.store))
