"""Say what a worker's take starts, ends or leaves, in the reference model."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence

from tests.machine.fair_queue import FairQueues
from tests.machine.words import Tracked

FENCED = ("fenced",)
LIMIT_ERRORS = {"queue": "queue_timeout", "first_token": "first_token_timeout", "deadline": "deadline"}


class Takes:
    """The part of the reference model that is about takes."""

    requests: dict[str, Tracked]
    dead: set[str]
    queues: FairQueues
    taken: dict[str, tuple[int, list[tuple[str, int]]]]
    _is_due: Callable[..., bool]
    _terminate: Callable[..., None]

    def take(
        self, worker: str, number: int, models: Sequence[str], slots: int, resumable: bool, accepts: tuple[str, ...]
    ) -> tuple[object, ...]:
        if worker in self.dead:
            return FENCED
        last, runs = self.taken.get(worker, (0, []))
        if number < last:
            return ("stale",)
        if number == last:
            held = [self.requests[rid] for rid, attempt in runs if self._runs(rid, worker, attempt)]
            return ("ok", tuple(_started(request) for request in held), (), False)
        started: list[Tracked] = []
        skipped: set[str] = set()
        means = {model: self.queues.models[model].mean for model in models}
        latest: defaultdict[str, float] = defaultdict(float)
        removed, is_full = 0, False

        def attempt_start(request: Tracked) -> str:
            nonlocal removed, is_full
            error_type = self._ends_as(request, resumable)
            if error_type and started:
                is_full = True
                return "full"
            if error_type:
                if error_type != "worker_lost":
                    request.cancelled_by = f"limit:{error_type}"
                self._terminate(request, "failed", error_type)
                removed += 1
                return "removed"
            if "*" not in accepts and not set(request.needs) <= set(accepts):
                return "skipped"
            model = request.labels.model
            latest[model] = max(latest[model], self.queues.charge(request, means[model]))
            self.queues.remove(request)
            request.status, request.worker, request.resumable = "running", worker, resumable
            request.attempt += 1
            request.deadlines.pop("queue", None)
            started.append(request)
            return "started"

        left = list(models) if slots else []
        while left:
            left = [
                model
                for model in left
                if len(started) < slots and not is_full and self.queues.take_next(model, attempt_start, skipped)
            ]
        for model in latest:
            queue = self.queues.models[model]
            if not queue.requests():
                has_slot = len(started) < slots
                queue.virtual_time = max(queue.virtual_time, max(queue.times.values()) if has_slot else latest[model])
        self.taken[worker] = (number, [(request.rid, request.attempt) for request in started])
        waits = (len(started) < slots and not is_full) or (slots > 0 and not started and not removed)
        for model in models:
            queue = self.queues.models[model]
            queue.waiting = [other for other in queue.waiting if other != worker] + ([worker] if waits else [])
            if not slots and queue.requests():
                self.queues.ring(queue)
        return ("ok", tuple(map(_started, started)), tuple(sorted(skipped)), waits)

    def _runs(self, rid: str, worker: str, attempt: int) -> bool:
        request = self.requests[rid]
        return (request.status, request.worker, request.attempt) == ("running", worker, attempt)

    def _ends_as(self, request: Tracked, resumable: bool) -> str:
        """Return the error of a request that may not start any more, '' if it may."""
        for kind, error_type in LIMIT_ERRORS.items():
            if self._is_due(request.deadlines.get(kind)):
                return error_type
        return "worker_lost" if request.pieces and not resumable else ""


def _started(request: Tracked) -> tuple[object, ...]:
    return (request.rid, request.attempt, request.number, request.cancel_mode)
