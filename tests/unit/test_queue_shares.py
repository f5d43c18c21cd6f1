"""Further limits of what waits: of one owner and of one model, in requests, tokens and bytes."""

from __future__ import annotations

import pytest

from lifecycle.formats.token_estimate import TokenEstimate
from lifecycle.queue_share import QueueShare
from lifecycle.settings import load
from lifecycle.store.new_request import AdmissionRequest, QueuePlace, ShareLimits
from lifecycle.store.results import Failure
from lifecycle.tracking.queue_limit import QueueLimit, share_limits
from lifecycle.types import Labels, Limits, OnDisconnect
from tests.unit.fake import fake_store
from tests.unit.world import MODEL, World


@pytest.fixture
async def roomy(world: World) -> World:
    await world.share(world.store.settings.model_copy(update={"queue_limit": 20_000}))
    return world


async def outcome(world: World, rid: str, limits: ShareLimits, **admission: object) -> str:
    given = {"owner": "a", "prompt_tokens": 10, "max_tokens": 90, "body": b"x" * 50} | admission
    return (await world.admit(rid, share_limits=limits, **given)).outcome


async def shares(world: World) -> dict[str, int]:
    flat = await world.store.command("HGETALL", f"{world.prefix}shares:{MODEL}")
    return {name.decode(): int(number) for name, number in zip(flat[::2], flat[1::2], strict=True)}


@pytest.mark.leaves_inflight
@pytest.mark.parametrize(
    ("limits", "refused"),
    [
        (ShareLimits(owner_requests=2), "queue_limit"),
        (ShareLimits(owner_tokens=299), "queue_limit"),
        (ShareLimits(owner_bytes=149), "queue_limit"),
        (ShareLimits(model_requests=2), "full_model"),
        (ShareLimits(model_tokens=299), "full_model"),
        (ShareLimits(model_bytes=149), "full_model"),
    ],
)
async def test_what_would_exceed_a_limit_is_refused_until_something_starts(
    roomy: World, limits: ShareLimits, refused: str
) -> None:
    assert [await outcome(roomy, f"r{number}", limits) for number in range(3)] == ["admitted", "admitted", refused]
    other = await outcome(roomy, "other", limits, owner="b")
    assert other == ("admitted" if refused == "queue_limit" else refused)  # a burst concerns only its owner
    await roomy.take()
    assert await outcome(roomy, "r3", limits) == "admitted"


@pytest.mark.leaves_inflight
async def test_what_waits_alone_may_have_any_size(roomy: World) -> None:
    assert await outcome(roomy, "r0", ShareLimits(0, 1, 1, 0, 1, 1)) == "admitted"


@pytest.mark.leaves_inflight
async def test_a_request_without_limits_is_not_counted(roomy: World) -> None:
    await roomy.admit("r0")
    assert await shares(roomy) == {}


async def test_nothing_is_left_when_nothing_waits(roomy: World) -> None:
    limits = ShareLimits(owner_tokens=10_000)
    for rid in ("started", "cancelled", "moved"):
        await outcome(roomy, rid, limits)
    assert await shares(roomy) == {"n": 3, "t": 300, "b": 150, "t|a": 300, "b|a": 150}
    await roomy.cancel(rid="cancelled")
    runs = [await roomy.take() for _ in range(2)]
    assert await shares(roomy) == {}
    moved = runs[1]
    await roomy.store.requeue(moved.rid, "w0", moved.start.attempt, failure=Failure("later"))
    assert (await shares(roomy))["t|a"] == 100
    await roomy.take()
    assert await shares(roomy) == {}
    for run in runs:
        await roomy.finish(rid=run.rid, attempt=1 if run is runs[0] else 2)


@pytest.mark.leaves_inflight
async def test_without_a_limit_of_its_own_an_answer_counts_as_the_models_mean(roomy: World) -> None:
    await outcome(roomy, "r0", ShareLimits(owner_tokens=10_000), max_tokens=None)
    assert (await shares(roomy))["t|a"] == 266
    await roomy.store.command("HSET", f"{roomy.prefix}queue:{MODEL}", "mean_tokens", "40.5")
    await roomy.store.command("EXPIRE", f"{roomy.prefix}queue:{MODEL}", 60)
    await outcome(roomy, "r1", ShareLimits(owner_tokens=10_000), max_tokens=None)
    assert (await shares(roomy))["t|a"] == 316


@pytest.mark.leaves_inflight
async def test_a_sweep_corrects_what_redis_has_lost(roomy: World) -> None:
    for rid in ("r0", "r1"):
        await outcome(roomy, rid, ShareLimits(owner_tokens=10_000))
    await roomy.store.command("HSET", f"{roomy.prefix}shares:{MODEL}", "t|a", "999", "t|gone", "5")
    await roomy.store.sweep(0, [])
    assert await shares(roomy) == {"n": 2, "t": 200, "b": 100, "t|a": 200, "b|a": 100}


async def test_a_sweep_corrects_the_shares_of_an_empty_queue(roomy: World) -> None:
    """Otherwise nothing may be queued, and so nothing corrects them, for ever."""
    limits = ShareLimits(model_requests=1)
    await outcome(roomy, "r0", limits)
    record = f"{roomy.prefix}request:r0"
    await roomy.store.command("RENAME", record, "kept")
    assert (await roomy.take_all()).runs == []  # it leaves the queue, and nothing tells its share
    await roomy.store.command("RENAME", "kept", record)
    await roomy.store.sweep(0, [])
    assert await shares(roomy) == {}
    await roomy.cancel(rid="r0")


def request(rid: str, share: QueueShare = QueueShare(), owner: str = "a") -> AdmissionRequest:
    labels = Labels(MODEL, "chat_completions", "stream")
    place = QueuePlace(estimate=TokenEstimate(10, 90), share=share)
    return AdmissionRequest(rid, labels, b"x" * 50, OnDisconnect.CANCEL, 0.0, Limits(), owner=owner, place=place)


def test_of_a_setting_and_a_key_the_smaller_limit_applies() -> None:
    settings = load({"owner_queue_tokens": 100, "owner_queue_bytes": 500, "model_queue_limit": 7})
    assert share_limits(load(), request("r")) is None
    assert share_limits(settings, request("r", QueueShare(3, 40, 900))) == (3, 40, 500, 7, 0, 0)


@pytest.mark.parametrize(
    ("settings", "refused"),
    [
        ({"owner_queue_tokens": 299}, "queue_limit"),
        ({"owner_queue_bytes": 149}, "queue_limit"),
        ({"model_queue_limit": 2}, "full_model"),
        ({"model_queue_tokens": 299}, "full_model"),
        ({"model_queue_bytes": 149}, "full_model"),
        ({"queue_limit": 2}, "full"),
    ],
)
async def test_over_several_shards_frontends_add_up(settings: dict[str, int], refused: str) -> None:
    store = fake_store(load({"shards": 4, **settings}))
    limit = QueueLimit(store)
    assert [await limit.refusal(request(f"r{number}")) for number in range(2)] == [None, None]

    async def shares(model: str, owner: str) -> list[int]:
        return [200, 100, 2, 200, 100]

    async def depth(model: str, owner: str) -> int:
        return 2

    store.queue_shares, store.queue_depth = shares, depth  # type: ignore[method-assign]
    assert await limit.refusal(request("r2")) == refused
    await store.commands.aclose()


async def test_near_the_limit_of_a_key_what_waits_is_read_for_each_request() -> None:
    """A sum of a tenth of a second ago would refuse a request although the queue has become empty since."""
    store = fake_store(load({"shards": 4}))
    limit, waiting = QueueLimit(store), 0

    async def depth(model: str, owner: str) -> int:
        return waiting

    store.queue_depth = depth  # type: ignore[method-assign]
    of_key = QueueShare(requests=2)
    assert [await limit.refusal(request(f"r{number}", of_key)) for number in range(2)] == [None, None]
    waiting = 2
    assert await limit.refusal(request("r2", of_key)) == "queue_limit"
    waiting = 0
    assert await limit.refusal(request("r3", of_key)) is None
    await store.commands.aclose()


@pytest.mark.parametrize("settings", [{"model_queue_tokens": 299}, {"model_queue_bytes": 149}])
async def test_what_another_owner_has_just_queued_counts_for_the_model(settings: dict[str, int]) -> None:
    """Though the sums over all shards were read within the last tenth of a second, before that."""
    store = fake_store(load({"shards": 4, **settings}))
    limit, waiting = QueueLimit(store), 0

    async def shares(model: str, owner: str) -> list[int]:
        return [0, 0, waiting, 100 * waiting, 50 * waiting]

    store.queue_shares = shares  # type: ignore[method-assign]
    for waiting, owner in enumerate(("ann", "bob")):
        assert await limit.refusal(request(f"r{waiting}", owner=owner)) is None
    waiting = 2
    assert await limit.refusal(request("r2", owner="ann")) == "full_model"
    await store.commands.aclose()
