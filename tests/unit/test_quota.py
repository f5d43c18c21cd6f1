"""An owner's inflight limit: never more than it says, never less than it says for long, whatever is left half done."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from lifecycle.settings import Settings
from lifecycle.store.quota_slots import QuotaSlot
from lifecycle.store.transitions import Store
from lifecycle.tracking.quota import Quota
from lifecycle.types import CancelMode, Labels
from tests.admitting import admit as admit_request
from tests.unit.fake import fake_store
from tests.unit.world import World

pytestmark = pytest.mark.leaves_inflight

OWNER = "acme"


async def reserve(world: World, rid: str, limit: int = 2) -> QuotaSlot | None:
    """Reserve a slot as one of many frontends, with no state from earlier calls."""
    return await Quota(world.store).reserve(OWNER, rid, f"nonce-{rid}", limit)


async def admit(world: World, share: QuotaSlot) -> str:
    """Admit a request with its quota slot, and return the outcome."""
    answer = await world.admit(share.rid, nonce=share.nonce, owner=OWNER, admit_by=share.admit_by)
    return answer.outcome


async def test_shares_are_taken_until_none_is_left(world: World) -> None:
    assert [await reserve(world, rid) is not None for rid in ("a", "b", "c")] == [True, True, False]
    assert await Quota(world.store).reserve("another", "c", "n", 2), "each owner has shares of its own"


async def test_a_repeated_reservation_takes_one_share(world: World) -> None:
    assert await reserve(world, "a") == await reserve(world, "a")
    assert await reserve(world, "b")


async def test_an_ended_request_needs_its_share_no_more(world: World) -> None:
    for rid in ("a", "b"):
        share = await reserve(world, rid)
        assert share
        assert await admit(world, share) == "admitted"
    assert await reserve(world, "c") is None
    await world.cancel(rid="a")
    assert await reserve(world, "c")
    assert await reserve(world, "d") is None


async def test_an_end_notes_its_slot_until_the_slot_is_released(world: World) -> None:
    share = await reserve(world, "a", limit=1)
    assert share
    await admit(world, share)
    key = world.store.keys.prefixes[0] + "ended_slots:" + OWNER
    await world.cancel(rid="a")
    assert await world.store.command("SMEMBERS", key) == [share.member.encode()]
    assert await world.store.command("PTTL", key) > 0
    assert await reserve(world, "b", limit=1)
    assert not await world.store.command("EXISTS", key)


async def test_a_slot_whose_end_was_not_noted_is_released_once_its_admission_is_over(world: World) -> None:
    """Release it by its time, because a failover may have lost the note."""
    share = await reserve(world, "a", limit=1)
    assert share
    await admit(world, share)
    await world.cancel(rid="a")
    await world.store.command("DEL", world.store.keys.prefixes[0] + "ended_slots:" + OWNER)
    world.shift_clock(world.store.settings.lease_secs + 1)
    assert await reserve(world, "b", limit=1)


async def test_an_admission_that_never_comes_holds_its_share_for_a_lease_and_is_refused_then(world: World) -> None:
    left = await reserve(world, "a", limit=1)
    assert left
    assert await reserve(world, "b", limit=1) is None
    world.shift_clock(world.store.settings.lease_secs + 1)
    await world.heartbeat()
    assert await reserve(world, "b", limit=1)
    assert await admit(world, left) == "late"


async def test_a_request_of_the_same_id_does_not_hold_the_share_of_another(world: World) -> None:
    """The second of two calls with one id is refused; the first one's end says nothing about it."""
    first = await reserve(world, "a")
    assert first
    await admit(world, first)
    quota = Quota(world.store)
    second = await quota.reserve(OWNER, "a", "other", 2)
    assert second
    assert await admit(world, second) == "exists"
    await quota.release(OWNER, second)
    assert await reserve(world, "b")
    assert await reserve(world, "c") is None


async def test_those_who_find_it_full_together_share_one_look(world: World) -> None:
    for rid in ("a", "b"):
        share = await reserve(world, rid)
        assert share
        await admit(world, share)
    await world.cancel(rid="a")
    quota = Quota(world.store)
    answers = await asyncio.gather(*(quota.reserve(OWNER, f"x{n}", "n", 2) for n in range(20)))
    assert sum(share is not None for share in answers) == 1


async def test_the_owner_is_kept_and_shown(world: World) -> None:
    await world.admit(owner=OWNER)
    record = await world.record()
    assert record.owner == record.to_json()["owner"] == OWNER


class Frontends(RuleBasedStateMachine):
    """Frontends that reserve, admit late or never, die in between, and never give anything back."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        chosen = Settings(shards=4, lease_secs=30, heartbeat_secs=10, queue_limit=1000)
        self.store: Store = self.run(self._open(chosen))
        self.limit = self.started = 0
        self.reserved: list[QuotaSlot] = []
        self.admitted: set[str] = set()

    async def _open(self, chosen: Settings) -> Store:
        return fake_store(chosen)

    def run(self, work: Any) -> Any:
        return self.loop.run_until_complete(work)

    @initialize(limit=st.sampled_from([1, 3]))
    def is_given(self, limit: int) -> None:
        self.limit = limit

    @rule()
    def reserve(self) -> None:
        self.started += 1
        quota = Quota(self.store)
        share = self.run(quota.reserve(OWNER, f"r{self.started}", "n", self.limit))
        pending = sum(share.admit_by >= self.now() for share in self.reserved)
        if share is None:
            assert len(self.admitted) + pending >= self.limit, "refused though there was room"
        else:
            self.reserved.append(share)

    @precondition(lambda self: self.reserved)
    @rule(data=st.data())
    def admit(self, data: st.DataObject) -> None:
        share = self.reserved.pop(data.draw(st.integers(0, len(self.reserved) - 1)))
        answer = self.run(
            admit_request(
                self.store,
                share.rid,
                nonce=share.nonce,
                labels=Labels("m", "completions", "stream"),
                frontend="f",
                owner=OWNER,
                admit_by=share.admit_by,
            )
        )
        if answer.outcome == "admitted":
            self.admitted.add(share.rid)
        else:
            assert answer.outcome == "late"

    @precondition(lambda self: self.admitted)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        rid = data.draw(st.sampled_from(sorted(self.admitted)))
        self.run(self.store.cancel(rid, CancelMode.KILL, "enough"))
        self.admitted.discard(rid)

    @rule(secs=st.sampled_from([10, 31]))
    def time_passes(self, secs: int) -> None:
        self.store.clock_shift_secs += secs

    @invariant()
    def never_more_than_the_limit(self) -> None:
        assert len(self.admitted) <= self.limit

    def now(self) -> float:
        secs, micros = self.run(self.store.command("TIME"))
        return int(secs) + int(micros) / 1e6 + self.store.clock_shift_secs

    def teardown(self) -> None:
        self.run(self.store.commands.aclose())
        self.loop.close()


TestFrontends = Frontends.TestCase
TestFrontends.settings = settings(
    max_examples=15, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)
