"""Read what waits for a model in one shard, and what decides when its requests start."""

from __future__ import annotations

from typing import NamedTuple

from lifecycle.store.runner import ScriptRunner, as_text

FLOWS_LIMIT = 100  # that one call reads; beyond these a place in the order is an estimate
MOST_FLOWS = 1000  # that are listed
REQUESTS_LIMIT = 300  # whose costs are read; with as many flows it takes Redis 1.8 ms
SECS_PER_BUCKET = 10  # of the counters of starts, see include/scheduler.lua
_FIRST_MEAN_TOKENS = 256.0  # see cost.lua


class Flow(NamedTuple):
    """The requests of one owner that wait with one priority, in order."""

    priority: int
    owner: str
    virtual_time: float  # at which the first of them is served
    size: int
    oldest_at: float  # since when the one waits that does so for longest
    weight: float
    costs: tuple[float, ...]  # of the first ones, in tokens as estimated, without what was given back to the owner


class Place(NamedTuple):
    """Say where a queued request is: behind `rank` others of its flow."""

    priority: int
    owner: str
    rank: int


class ShardQueue(NamedTuple):
    """Hold what waits for a model in one shard at the time `now`. Flows are in the order in which they are served."""

    now: float
    mean_tokens: float  # of recent answers
    mean_secs: float | None  # for which recent requests ran; None until one has ended
    starts: dict[int, int]  # by ten seconds of Redis's clock, of the last minute
    flows: tuple[Flow, ...]
    left_out: int  # how many flows were not read; of the level of the request that was asked for, if there is one
    place: Place | None  # of the request that was asked for
    before: int = 0  # how many requests of better priority than that wait in flows that were not read
    read_until: float | None = None  # the virtual time behind which flows were not read; None where all were
    unread_before: int = 0  # how many of these have a place before that of the request's flow
    rings_below: float | None = None  # a request of a better priority than that starts at once; None when all wait

    @property
    def size(self) -> int:
        """Return how many requests wait, as far as the flows were read."""
        return sum(flow.size for flow in self.flows)


async def read_shard_queue(
    store: ScriptRunner, shard: int, model: str, rid: str = "", *, skipped: int = 0
) -> ShardQueue:
    """Read the queue of a model in one shard, and the place of the request `rid` there, if it is given and queued.

    The first `skipped` flows are left out. Nothing is written. The costs of a bounded number of requests are read, so
    that Redis is never busy with it for long. Raises StoreUnavailable.
    """
    prefix = store.keys.prefixes[shard]
    reply = await store.run("waits", prefix, model, rid, FLOWS_LIMIT, REQUESTS_LIMIT, skipped, retry_for_secs=0.3)
    now, mean_tokens, mean_secs = (as_text(part) for part in reply[:3])
    mean = float(mean_tokens) if mean_tokens else _FIRST_MEAN_TOKENS
    counters = [as_text(part).split() for part in reply[3]]
    starts = {int(bucket): int(number) for bucket, number in counters}
    place = reply[6]
    return ShardQueue(
        float(now),
        mean,
        float(mean_secs) if mean_secs else None,
        starts,
        tuple(_flow(raw, mean) for raw in reply[4]),
        int(reply[5]),
        Place(int(place[0]), as_text(place[1]), int(place[2])) if place else None,
        int(reply[7]),
        float(reply[8]) if reply[8] else None,
        int(reply[9]),
        float(reply[10]) if reply[10] else None,
    )


async def read_whole_queue(store: ScriptRunner, shard: int, model: str) -> ShardQueue:
    """Read the queue of a model in one shard with all its flows, or the first thousand, one call for each hundred.

    Raises StoreUnavailable.
    """
    queue = await read_shard_queue(store, shard, model)
    flows, skipped = {(flow.priority, flow.owner): flow for flow in queue.flows}, FLOWS_LIMIT
    while queue.left_out and skipped < MOST_FLOWS:
        queue = await read_shard_queue(store, shard, model, skipped=skipped)
        flows |= {(flow.priority, flow.owner): flow for flow in queue.flows}  # some may have moved meanwhile
        skipped += FLOWS_LIMIT
    return queue._replace(flows=tuple(flows.values()))


def _flow(raw: list[bytes | int], mean_tokens: float) -> Flow:
    priority, owner, virtual_time, size, oldest_at, weight, credit, *tokens = (as_text(part) for part in raw)
    counted = max(float(weight), 0.001)
    left, costs = float(credit) * counted, []
    for prompt, output in zip(tokens[::2], tokens[1::2], strict=True):
        cost = max(1.0, float(prompt) + (float(output) if output else mean_tokens))
        used = min(left, cost)
        left -= used
        costs.append(cost - used)
    return Flow(int(priority), owner, float(virtual_time), int(size), float(oldest_at), counted, tuple(costs))
