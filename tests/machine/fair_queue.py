"""The model of the queues: the order in which requests start, and which workers wait for a bell.

Times are rounded as Redis's scripts round them, so that both stay equal.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from tests.machine.members import Members
from tests.machine.words import Tracked

FIRST_MEAN_TOKENS = 256.0
EQUAL = 0.001  # tokens: claims whose virtual times are less than that apart are the same


@dataclass
class ModelQueue:
    """The queue of one model."""

    levels: defaultdict[int, dict[str, float]] = field(default_factory=lambda: defaultdict(dict))
    flows: defaultdict[tuple[int, str], list[Tracked]] = field(default_factory=lambda: defaultdict(list))
    times: dict[str, float] = field(default_factory=dict)
    virtual_time: float = 0.0
    served: dict[int, float] = field(default_factory=dict)  # virtual times of the levels in which something waits
    mean: float | None = None
    waiting: list[str] = field(default_factory=list)  # workers, the one that waits longest first

    def requests(self) -> list[Tracked]:
        return [request for flow in self.flows.values() for request in flow]


class FairQueues:
    def __init__(self, members: Members) -> None:
        self.models: defaultdict[str, ModelQueue] = defaultdict(ModelQueue)
        self._members = members

    def of(self, request: Tracked) -> ModelQueue:
        return self.models[request.labels.model]

    def enqueue(self, request: Tracked, *, again: bool = False) -> None:
        queue, level = self.of(request), self.of(request).levels[request.priority]
        flow = queue.flows[request.priority, request.owner]
        request.queued_again = again
        was_empty = not flow
        flow.append(request)
        flow.sort(key=lambda waiting: (not waiting.queued_again, waiting.number_of_admission))
        if was_empty:
            known = queue.times.get(request.owner)
            reached = queue.virtual_time
            if level:
                head = min(level.values())
                reached = min(reached, max(head, queue.served.get(request.priority, head)))
            place, equal, is_before = max(known or 0.0, reached), [], False
            if not again:  # those who have just been served come last, and those with the same claim came first
                was_served = known is not None and known > reached - EQUAL
                place = max(known or 0.0, reached + EQUAL) if was_served else reached
                equal = [time for time in level.values() if round(place, 6) <= time < round(place + EQUAL, 6)]
                place = round(max(equal) + 0.000001 if equal else place, 6)
            elif level and place == reached == min(level.values()):
                place, is_before = round(place - 0.000001, 6), True
            if known is not None and (equal or is_before or known < reached):
                queue.times[request.owner] = place
            level[request.owner] = place
        self.ring(queue)

    def ring(self, queue: ModelQueue) -> None:
        for _ in range(4):
            if not queue.waiting:
                return
            worker = queue.waiting.pop(0)
            if worker in self._members.leases and self._members.leases[worker][1] > self._members.now:
                return

    def remove(self, request: Tracked) -> None:
        queue = self.of(request)
        flow = queue.flows[request.priority, request.owner]
        if request not in flow:
            return
        flow.remove(request)
        if not flow:
            del queue.levels[request.priority][request.owner]
            if not queue.levels[request.priority]:
                queue.served.pop(request.priority, None)

    def take_next(self, model: str, attempt_start: Callable[[Tracked], str], skipped: set[str]) -> bool:
        """Try the next requests of a model. `attempt_start` returns `started`, `removed`, `skipped` or `full`."""
        queue = self.models[model]
        for priority in sorted(priority for priority, level in queue.levels.items() if level):
            level, rank = queue.levels[priority], 0
            while rank < len(level):
                reached, owner = sorted((time, owner) for owner, time in level.items())[rank]
                known = queue.times.get(owner, 0.0)
                if known > reached:
                    level[owner] = known
                    continue
                what = self._try_flow(queue.flows[priority, owner], attempt_start, skipped)
                if what in ("started", "full"):
                    return what == "started"
                rank += what == "skipped"
        return False

    @staticmethod
    def _try_flow(flow: Iterable[Tracked], attempt_start: Callable[[Tracked], str], skipped: set[str]) -> str:
        for request in list(flow):
            if request.rid not in skipped:
                what = attempt_start(request)
                if what != "skipped":
                    return what
                skipped.add(request.rid)
        return "skipped"

    def charge(self, request: Tracked, mean: float | None) -> float:
        """Charge the owner of a request that starts. Return its owner's virtual time afterwards."""
        queue, level = self.of(request), self.of(request).levels[request.priority]
        estimate = request.max_tokens if request.max_tokens is not None else FIRST_MEAN_TOKENS if mean is None else mean
        cost = max(1.0, estimate)
        reached = level[request.owner]
        after = round(min(queue.times.get(request.owner, reached), reached) + cost / request.weight, 6)
        queue.times[request.owner] = after
        level[request.owner] = max(after, reached)
        queue.virtual_time = max(queue.virtual_time, reached)
        queue.served[request.priority] = max(queue.served.get(request.priority, 0.0), reached)
        request.cost = round(cost)
        return after

    def settle(self, request: Tracked, tokens: int, *, yields: bool = False) -> None:
        """Charge what a request has cost in fact. What is given back when it `yields` passes nobody who is next."""
        if request.cost is None:
            return
        queue, owner = self.of(request), request.owner
        by, request.cost = (tokens - request.cost) / request.weight, None
        known = queue.times.get(owner)
        if by == 0 or (by < 0 and known is None):
            return
        before = queue.virtual_time if known is None else known
        after = queue.times[owner] = round(max(0.0, before + by), 6)
        if by > 0 and not any(queue.levels.values()):
            queue.virtual_time = max(queue.virtual_time, after)
        for level in queue.levels.values():
            if by < 0 and owner in level and after < level[owner] < before + EQUAL + 0.000001:
                others = sorted(place for other, place in level.items() if other != owner)
                moved = round(max(after, others[0] + 0.000001), 6) if others and yields else after
                level[owner] = min(level[owner], moved)

    def note_answer(self, request: Tracked) -> None:
        queue, tokens = self.of(request), request.number
        if not tokens or request.max_tokens == 0:
            return
        queue.mean = round(float(tokens) if queue.mean is None else queue.mean + (tokens - queue.mean) / 16, 3)
