"""Compute in which order and how soon the requests of a queue will start, if nobody else comes.

The order is that of the script `take`: levels by priority, in a level the flow of the least virtual time, which a start
advances by its cost divided by the owner's weight.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable
from itertools import accumulate, groupby, pairwise

from lifecycle.store.shard_queues import SECS_PER_BUCKET, Flow, ShardQueue

_MINUTE_SECS = 60
_EQUAL = 0.001  # tokens; see include/queue.lua
_SURE_SECS = 20.0  # a queue that has been waited in for so long shows by its starts how fast it is served


def position_of(queue: ShardQueue, priority: int, owner: str, rank: int, weight: float = 1.0) -> int:
    """Return the place in the shard's order of the request behind `rank` others of its flow; 1 is next.

    The flow need not exist: `weight` is then that of its owner.
    """
    before = queue.before + sum(flow.size for flow in queue.flows if flow.priority < priority)
    level = [flow for flow in _as_served(queue.flows) if flow.priority == priority]
    own = next((flow for flow in level if flow.owner == owner), None)
    others = [flow for flow in level if flow is not own]
    # A newcomer gets no advantage from not having waited, and comes behind all who wait at the same virtual time.
    newcomer_at = min((flow.virtual_time for flow in others), default=0.0) + _EQUAL
    at = newcomer_at if own is None else _time_of(own, rank)
    ahead = sum(_served_before(flow, at, is_first_of_equals=flow.owner < owner) for flow in others)
    if queue.left_out and level and priority == max(flow.priority for flow in queue.flows):
        ahead += round(ahead / max(1, len(others)) * _unread_before(queue, priority, owner, at, rank))
    return before + ahead + rank + 1


def _unread_before(queue: ShardQueue, priority: int, owner: str, at: float, rank: int) -> int:
    """Return before how many of the flows that were not read the virtual time `at` may not come.

    Those that are before it are taken to be like the flows that were read.
    """
    if queue.read_until is not None and at <= queue.read_until:
        return 0
    is_asked_for = queue.place is not None and queue.place[:2] == (priority, owner)
    return queue.unread_before if is_asked_for and rank == 0 else queue.left_out


def last_positions(queue: ShardQueue) -> dict[tuple[int, str], int]:
    """Return the places of the last requests of all flows, by priority and owner, as `position_of` tells each of them.

    It takes milliseconds for a thousand flows. Far behind the costs that were read it is an estimate.
    """
    found, before = {}, 0
    flows = _as_served(queue.flows)
    for priority, level in groupby(flows, lambda flow: flow.priority):
        of_level = list(level)
        starts = sorted((at, flow.owner) for flow in of_level for at in _times(flow)[: flow.size])
        unread = _UnreadStarts(of_level)
        is_last = priority == flows[-1].priority
        for flow in of_level:
            at, known = _time_of(flow, flow.size - 1), len(flow.costs[: flow.size]) + 1
            of_own = flow.size if flow.size > known else flow.size - 1
            ahead = bisect_left(starts, (at, flow.owner)) + unread.until(at) - of_own
            if queue.left_out and is_last:
                left = _unread_before(queue, priority, flow.owner, at, flow.size - 1)
                ahead += round(ahead / max(1, len(of_level) - 1) * left)
            found[priority, flow.owner] = before + ahead + flow.size
        before += sum(flow.size for flow in of_level)
    return found


class _UnreadStarts:
    """Count the starts of requests whose costs were not read, which come at the pace of each flow's mean cost."""

    def __init__(self, flows: Iterable[Flow]) -> None:
        bends: defaultdict[float, float] = defaultdict(float)
        for flow in flows:
            times = _times(flow)
            unread, step = flow.size - len(times), _mean_step(flow)
            if unread > 0:
                bends[times[-1]] += 1 / step
                bends[times[-1] + unread * step] -= 1 / step
        self._bends = sorted(bends)
        self._slopes = list(accumulate(bends[at] for at in self._bends))
        spans = (later - at for at, later in pairwise(self._bends))
        self._counts = list(accumulate((s * d for s, d in zip(self._slopes, spans, strict=False)), initial=0.0))

    def until(self, at: float) -> int:
        """Return how many of them come before the virtual time `at`."""
        number = bisect_right(self._bends, at) - 1
        return round(self._counts[number] + self._slopes[number] * (at - self._bends[number])) if number >= 0 else 0


def _as_served(flows: Iterable[Flow]) -> list[Flow]:
    """Return the flows with the virtual times that they have once everything of better priority has started."""
    reached: dict[str, float] = {}
    found = []
    for flow in sorted(flows, key=lambda flow: flow.priority):
        flow = flow._replace(virtual_time=max(flow.virtual_time, reached.get(flow.owner, 0.0)))
        reached[flow.owner] = _time_of(flow, flow.size)
        found.append(flow)
    return found


def _times(flow: Flow) -> list[float]:
    """Return the virtual times at which the first requests of a flow are served, and that of the one behind them."""
    costs = flow.costs[: flow.size]
    return list(accumulate(costs, lambda at, cost: round(at + cost / flow.weight, 6), initial=flow.virtual_time))


def _mean_step(flow: Flow) -> float:
    return sum(flow.costs) / len(flow.costs) / flow.weight if flow.costs else 1.0


def _time_of(flow: Flow, rank: int) -> float:
    """Return the virtual time at which the request of this rank is served; from the mean cost, if it is far behind."""
    times = _times(flow)
    return times[rank] if rank < len(times) else times[-1] + (rank - len(times) + 1) * _mean_step(flow)


def _served_before(flow: Flow, at: float, *, is_first_of_equals: bool) -> int:
    """Return how many requests of a flow are served before another flow reaches the virtual time `at`."""
    times = _times(flow)
    find = bisect_right if is_first_of_equals else bisect_left
    number = find(times, at)
    if number == len(times) and flow.size > len(times):
        number += int((at - times[-1]) / _mean_step(flow))
    return min(number, flow.size)


def drain_per_sec(queue: ShardQueue) -> float:
    """Return how many requests of the shard started each second, over the last minute."""
    return _starts_since(queue, queue.now - _MINUTE_SECS) / _MINUTE_SECS


def _starts_since(queue: ShardQueue, since: float) -> float:
    """Return how many requests have started since then; the counter that it falls into counts in part."""
    total = 0.0
    for bucket, number in queue.starts.items():
        begins, ends = bucket * SECS_PER_BUCKET, (bucket + 1) * SECS_PER_BUCKET
        covered = min(ends, queue.now) - max(begins, since)
        if covered > 0:
            total += number * covered / (min(ends, queue.now) - begins)
    return total


def starts_per_sec(queue: ShardQueue, slots: float) -> float | None:
    """Return how fast the shard's queue is served while it is not empty; None when nothing tells.

    While requests have waited for some time, the counted starts say so. Before, it follows from how long requests run
    and how many can at a time; `slots` are the shard's share of those.
    """
    waited_secs = min(_MINUTE_SECS, max((queue.now - flow.oldest_at for flow in queue.flows), default=0.0))
    if waited_secs >= _SURE_SECS:
        counted = _starts_since(queue, queue.now - waited_secs) / waited_secs
        if counted > 0:
            return counted
    if queue.mean_secs is not None and slots > 0:
        return slots / max(queue.mean_secs, 0.001)
    return drain_per_sec(queue) or None
