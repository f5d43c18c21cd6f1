"""The order in which queued requests will start, and how soon, from what one script reads of a shard."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from lifecycle.queries.start_order import drain_per_sec, last_positions, position_of, starts_per_sec
from lifecycle.store.shard_queues import Flow, ShardQueue

NOW = 1_000_000.0


def flow(owner: str, costs: Sequence[float], at: float = 0.0, weight: float = 1.0, **more: object) -> Flow:
    made = Flow(0, owner, at, len(costs), NOW - 1, weight, tuple(costs))
    return made._replace(**more)  # type: ignore[arg-type]


def queue(
    *flows: Flow, left_out: int = 0, starts: dict[int, int] | None = None, mean_secs: float | None = None
) -> ShardQueue:
    return ShardQueue(NOW, 100.0, mean_secs, starts or {}, flows, left_out, None)


def served(flows: Sequence[Flow]) -> list[tuple[int, str, int]]:
    """Serve all requests as the script `take` does, one by one; return (priority, owner, rank) in this order."""
    starts = {(f.priority, f.owner): f.virtual_time for f in flows}
    charged: dict[str, float] = {}
    ranks = dict.fromkeys(starts, 0)
    by_key = {(f.priority, f.owner): f for f in flows}
    order = []
    while by_key:
        times = {key: max(starts[key], charged.get(key[1], 0.0)) for key in by_key}
        key = min(by_key, key=lambda key: (key[0], times[key], key[1]))
        f, rank = by_key[key], ranks[key]
        order.append((*key, rank))
        charged[f.owner] = starts[key] = round(times[key] + f.costs[rank] / f.weight, 6)
        ranks[key] += 1
        if ranks[key] == f.size:
            del by_key[key]
    return order


@pytest.mark.parametrize("seed", range(50))
def test_a_position_is_the_one_in_which_the_scheduler_would_serve(seed: int) -> None:
    chance = random.Random(seed)
    flows = [
        flow(
            owner,
            [float(chance.choice((1, 10, 10, 300))) for _ in range(chance.randint(1, 12))],
            float(chance.choice((0, 0, 5, 100))),
            chance.choice((1.0, 1.0, 3.0, 0.5)),
            priority=priority,
        )
        for priority in (-1, 0, 7)
        for owner in ("a", "b", "c")[: chance.randint(0, 3)]
    ]
    for place, (priority, owner, rank) in enumerate(served(flows), 1):
        assert position_of(queue(*flows), priority, owner, rank) == place


def test_a_request_that_is_not_there_yet_is_behind_its_owners_others_and_before_a_longer_flow() -> None:
    busy = queue(flow("a", [10.0] * 5), flow("b", [10.0]))
    assert position_of(busy, 0, "b", 1) == 4
    assert position_of(busy, 0, "c", 0) == 3  # nobody has an advantage from having waited
    assert position_of(busy, 1, "c", 0) == 7
    assert position_of(busy, -1, "c", 0) == 1
    assert position_of(queue(), 0, "c", 0) == 1


def test_behind_what_was_read_the_mean_cost_stands_for_the_rest() -> None:
    long = flow("a", [10.0] * 10, size=1000)
    assert position_of(queue(long), 0, "a", 900) == 901  # alone, it is exact
    both = queue(long, flow("b", [10.0] * 10, size=1000))
    assert position_of(both, 0, "b", 500) == pytest.approx(1001, abs=2)


def test_flows_that_were_not_read_are_taken_to_be_like_the_others() -> None:
    flows = [flow(f"o{number}", [10.0] * 3) for number in range(100)]
    assert position_of(queue(*flows, left_out=100), 0, "o0", 2) == pytest.approx(2 * 200 + 1, rel=0.1)


def test_starts_are_counted_over_the_last_minute() -> None:
    bucket = int(NOW // 10)
    assert drain_per_sec(queue(starts={bucket - n: 30 for n in range(1, 7)})) == pytest.approx(3.0)
    assert drain_per_sec(queue(starts={bucket - 7: 600})) == 0.0  # an older counter that nobody has cleared
    half = queue(starts={bucket - 6: 60})._replace(now=NOW + 5)
    assert drain_per_sec(half) == pytest.approx(0.5)


def test_a_queue_that_has_been_waited_in_is_served_as_fast_as_was_counted() -> None:
    bucket = int(NOW // 10)
    starts = {bucket - n: 20 for n in range(1, 7)}
    waited = queue(flow("a", [1.0], oldest_at=NOW - 30), starts=starts, mean_secs=100.0)
    assert starts_per_sec(waited, 4) == pytest.approx(2.0)


def test_one_that_has_just_filled_is_served_as_fast_as_its_slots_come_free() -> None:
    fresh = queue(flow("a", [1.0]), starts={int(NOW // 10) - 1: 1}, mean_secs=2.0)
    assert starts_per_sec(fresh, 8) == pytest.approx(4.0)
    assert starts_per_sec(queue(flow("a", [1.0])), 8) is None
    assert starts_per_sec(fresh._replace(mean_secs=None), 8) == pytest.approx(1 / 60)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("read", [12, 3])
def test_the_last_positions_are_those_that_are_told_one_by_one(seed: int, read: int) -> None:
    chance = random.Random(seed)
    flows = [
        flow(owner, [float(chance.choice((10, 20, 30)))] * chance.randint(1, 12), float(chance.choice((0, 5, 100))))
        for owner in ("a", "b", "c", "d")
    ]
    flows += [f._replace(priority=7) for f in flows if chance.random() < 0.7]
    waiting = queue(*(f._replace(costs=f.costs[:read]) for f in flows))
    one_by_one = {(f.priority, f.owner): position_of(waiting, f.priority, f.owner, f.size - 1) for f in flows}
    assert last_positions(waiting) == pytest.approx(one_by_one, abs=0 if read == 12 else 3)
