"""The outbox of webhooks: which ends put an event into it, and how frontends claim and settle events."""

from __future__ import annotations

import pytest

from lifecycle.store.results import Outcome
from lifecycle.store.webhooks import ClaimedWebhooks, DeliveryOutcome
from lifecycle.types import Status
from tests.unit.world import World

URL = "https://receiver.example/hook"
CLAIM_SECS = 20.0
LIMIT, ORIGIN_LIMIT = 10, 4


async def claim(world: World, token: str = "t", under_way: dict[str, int] | None = None) -> ClaimedWebhooks:
    return await world.store.claim_webhooks(
        0, token, limit=LIMIT, claim_secs=CLAIM_SECS, under_way=under_way or {}, origin_limit=ORIGIN_LIMIT
    )


async def waiting(world: World) -> int:
    return int(await world.store.command("ZCARD", world.prefix + "webhooks"))


async def end(world: World, rid: str = "r", url: str = URL, nonce: str = "n") -> None:
    """Cancel a queued request, which ends it at once."""
    assert (await world.admit(rid, nonce=nonce, webhook_url=url)).outcome == "admitted"
    assert await world.cancel(rid=rid) == "terminal"


async def test_the_end_of_a_request_leaves_an_event(world: World) -> None:
    await world.run(webhook_url=URL)
    assert (await world.record()).webhook == ""
    assert (await claim(world)).events == []
    await world.finish(outcome=Outcome("completed", finish_reason="length"))
    record = await world.record()
    assert record.webhook == "waiting"
    (event,) = (await claim(world)).events
    assert (event.url, event.rid, event.failures) == (URL, "r", 0)
    assert (event.status, event.finish_reason, event.error_type) == (Status.COMPLETED, "length", "")
    assert (event.endpoint, event.model) == (record.endpoint, record.model)
    assert (event.created_at, event.finished_at) == (record.created_at, record.finished_at)


async def test_a_request_without_a_webhook_leaves_none(world: World) -> None:
    await end(world, url="")
    assert await waiting(world) == 0
    assert (await world.record()).webhook == ""


async def test_no_script_returns_the_url(world: World) -> None:
    await world.admit(webhook_url=URL)
    assert URL.encode() not in await world.store.run("read", world.prefix, "r")
    await world.cancel()
    assert URL.encode() not in await world.store.run("read", world.prefix, "r")


async def test_an_end_by_a_limit_leaves_an_event(world: World) -> None:
    await world.admit(webhook_url=URL, deadline_secs=1)
    world.shift_clock(2)
    await world.store.sweep(0)
    (event,) = (await claim(world)).events
    assert (event.status, event.error_type) == (Status.FAILED, "deadline")


async def test_an_end_by_the_reaper_leaves_an_event(world: World) -> None:
    await world.admit(webhook_url=URL)
    await world.reap("f0")
    (event,) = (await claim(world)).events
    assert (event.status, event.error_type) == (Status.FAILED, "frontend_lost")


async def test_a_claimed_event_is_not_claimed_again_before_the_claim_lapses(world: World) -> None:
    await end(world)
    (event,) = (await claim(world, "a")).events
    assert (await claim(world, "b")).events == []
    world.shift_clock(CLAIM_SECS + 1)
    assert (await claim(world, "b")).events == [event]


async def test_a_delivered_event_leaves_nothing(world: World) -> None:
    await end(world)
    (event,) = (await claim(world)).events
    assert await world.store.settle_webhook(0, event, "t", "delivered") == "removed"
    assert await world.store.settle_webhook(0, event, "t", "delivered") == "lapsed"
    assert await waiting(world) == 0
    assert not await world.store.command("EXISTS", f"{world.prefix}webhook:{event.id}")


async def test_a_failed_delivery_is_due_again_later(world: World) -> None:
    await end(world)
    (event,) = (await claim(world)).events
    for what in ("kept", "lapsed"):  # the second one is a repetition
        assert await world.store.settle_webhook(0, event, "t", "failed", retry_after_secs=5) == what
    world.shift_clock(4)
    assert (await claim(world, "u")).events == []
    world.shift_clock(2)
    assert (await claim(world, "u")).events == [event._replace(failures=1)]


async def test_an_event_that_is_given_up_is_removed(world: World) -> None:
    await end(world)
    (event,) = (await claim(world)).events
    assert await world.store.settle_webhook(0, event, "t", "given_up") == "removed"
    assert await waiting(world) == 0


async def test_an_event_is_not_kept_for_more_than_a_day(world: World) -> None:
    await end(world)
    (event,) = (await claim(world)).events
    assert await world.store.settle_webhook(0, event, "t", "failed", retry_after_secs=86_401) == "removed"
    assert await waiting(world) == 0


@pytest.mark.parametrize(("outcome", "left"), [("failed", 1), ("given_up", 1), ("delivered", 0)])
async def test_of_a_lapsed_claim_only_a_delivery_counts(world: World, outcome: DeliveryOutcome, left: int) -> None:
    await end(world)
    (event,) = (await claim(world, "a")).events
    world.shift_clock(CLAIM_SECS + 1)
    await claim(world, "b")
    assert await world.store.settle_webhook(0, event, "a", outcome) == "lapsed"
    assert await waiting(world) == left
    assert await world.store.settle_webhook(0, event, "b", "failed") == ("kept" if left else "lapsed")


async def test_the_event_id_is_that_of_one_request_and_not_of_its_id(world: World) -> None:
    await end(world)
    (first,) = (await claim(world)).events
    await world.store.command("DEL", f"{world.prefix}request:r", f"{world.prefix}tokens:r")  # as if it had expired
    await world.store.command("ZREM", world.prefix + "created", "r")
    await end(world, nonce="m")
    (second,) = (await claim(world)).events
    assert first.id.startswith("evt_")
    assert len(first.id) == 36
    assert second.id != first.id
    assert await waiting(world) == 2


async def test_an_origin_gets_a_bounded_number_and_holds_up_no_other(world: World) -> None:
    slow, other = "https://slow.example:8443", "https://other.example/"
    for number in range(3):
        await end(world, f"slow-{number}", slow + "/hook")
    await end(world, "other", other)
    claimed = await claim(world, under_way={slow: ORIGIN_LIMIT - 1})
    assert [event.rid for event in claimed.events] == ["slow-0", "other"]
    assert claimed.more
    claimed = await claim(world, "u", under_way={slow: ORIGIN_LIMIT})
    assert (claimed.events, claimed.more) == ([], True)
    claimed = await claim(world, "v")
    assert [event.rid for event in claimed.events] == ["slow-1", "slow-2"]
    assert not claimed.more


async def test_many_events_for_a_slow_origin_do_not_hide_those_behind_them(world: World) -> None:
    slow = "https://slow.example"
    for number in range(101):
        await end(world, f"slow-{number}", slow)
    await end(world, "other")
    busy = {slow: ORIGIN_LIMIT}
    assert (await claim(world, "a", busy)).events == []
    assert [event.rid for event in (await claim(world, "b", busy)).events] == ["other"]
    world.shift_clock(2)
    assert len((await claim(world, "c")).events) == ORIGIN_LIMIT


async def test_no_more_is_claimed_than_was_asked_for(world: World) -> None:
    for number in range(LIMIT + 1):
        await end(world, f"r{number}", f"https://r{number}.example")
    claimed = await claim(world)
    assert (len(claimed.events), claimed.more) == (LIMIT, True)
    claimed = await claim(world, "u")
    assert (len(claimed.events), claimed.more) == (1, False)


async def test_an_event_whose_content_has_expired_is_counted_as_lost(world: World) -> None:
    await end(world)
    (event,) = (await claim(world)).events
    await world.store.command("DEL", f"{world.prefix}webhook:{event.id}")
    world.shift_clock(CLAIM_SECS + 1)
    assert await claim(world) == ClaimedWebhooks([], False, 1)
    assert await waiting(world) == 0


async def test_content_of_another_type_does_not_hold_up_the_others(world: World) -> None:
    await end(world, "a")
    await end(world, "b")
    broken, other = (await claim(world)).events
    await world.store.command("DEL", f"{world.prefix}webhook:{broken.id}")
    await world.store.command("SET", f"{world.prefix}webhook:{broken.id}", "x", "PX", 60_000)
    world.shift_clock(CLAIM_SECS + 1)
    assert await claim(world, "u") == ClaimedWebhooks([other], False, 1)
    await world.store.command("DEL", f"{world.prefix}webhook:{broken.id}")


async def test_a_full_outbox_takes_no_more(world: World) -> None:
    """A receiver that is away for long must not fill Redis."""
    filler = [part for number in range(100_000) for part in (9e9, f"evt_{number}")]
    for begin in range(0, len(filler), 20_000):
        await world.store.command("ZADD", world.prefix + "webhooks", *filler[begin : begin + 20_000])
    await end(world)
    assert (await world.record()).webhook == "dropped"
    assert await waiting(world) == 100_000
    assert int(await world.store.command("PEXPIRE", world.prefix + "webhooks", 1000)) == 1
