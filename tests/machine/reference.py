"""The reference model: the intended behaviour of the scripts in plain Python, without Redis and with a given clock.

Methods have the names of the store's and return what `actual.Actual` reduces the store's answers to. Time is whole
seconds; ticks order what happens within one, as Redis's microseconds do.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from lifecycle.store.results import Failure
from lifecycle.types import Labels, Role, Storage
from tests.machine.fair_queue import FairQueues
from tests.machine.lost_starts import LostStarts
from tests.machine.members import Members
from tests.machine.takes import FENCED, LIMIT_ERRORS, Takes
from tests.machine.trees import Trees
from tests.machine.words import Limits, Piece, Share, Tracked, body_of


class ReferenceModel(Takes, LostStarts, Trees):
    def __init__(self, *, lease_secs: int, queue_limit: int, queue_bytes: int, max_attempts: int) -> None:
        self.members = Members(lease_secs)
        self.queue_limit = queue_limit
        self.queue_bytes = queue_bytes
        self.max_attempts = max_attempts
        self.requests: dict[str, Tracked] = {}
        self.dead: set[str] = set()  # marked in the shard: they can write nothing there
        self.pending_cancellations: defaultdict[str, set[str]] = defaultdict(set)
        self.queues = FairQueues(self.members)
        self.taken: dict[str, tuple[int, list[tuple[str, int]]]] = {}  # worker → its last take: number, starts
        self.totals: Counter[tuple[str, ...]] = Counter()
        self.noted: dict[str, tuple[str, bool, int]] = {}
        self.children: defaultdict[str, set[str]] = defaultdict(set)
        self._ticks = 0

    # what a frontend does

    def admit(
        self,
        rid: str,
        nonce: str,
        labels: Labels,
        frontend: str,
        on_disconnect: str,
        grace_secs: int,
        limits: Limits,
        needs: tuple[str, ...],
        storage: str,
        share: Share,
    ) -> tuple[object, ...]:
        known = self.requests.get(rid)
        if known:
            return ("admitted",) if known.nonce == nonce else ("exists",)
        if frontend in self.dead:
            return FENCED
        queued = [r for r in self.requests.values() if r.status == "queued"]
        depth = sum((r.labels.model, r.owner) == (labels.model, share.owner) for r in queued)
        if depth >= self.queue_limit:
            return ("full", depth)
        if queued and sum(len(body_of(waiting)) for waiting in [rid, *(r.rid for r in queued)]) > self.queue_bytes:
            return ("full_bytes",)
        now, tick = self._due(0)
        deadlines = {kind: (now + secs, tick) for kind, secs in limits._asdict().items() if secs}
        readers = {frontend: 1}
        self.requests[rid] = Tracked(
            rid, nonce, labels, frontend, on_disconnect, grace_secs, deadlines, readers=readers, needs=needs
        )
        request = self.requests[rid]
        request.storage, request.queue_limit_secs, request.number_of_admission = storage, limits.queue, tick
        request.owner, request.priority, request.weight, request.max_tokens = share
        self.note_parent(request)
        self.queues.enqueue(request)
        return ("admitted",)

    def fail(self, rid: str, error_type: str, seen: int | None) -> tuple[object, ...]:
        request = self.requests[rid]
        if request.terminal:
            return ("already", request.status)
        if request.kill_pending:
            return ("killing",)
        if seen is not None and request.number > seen:
            return ("moved",)
        if error_type == "response_timeout":
            request.cancelled_by = "limit:response_timeout"
        self._end_from_outside(request, "failed", error_type)
        return ("done", "failed")

    def attach(self, rid: str, frontend: str, readers: int) -> tuple[object, ...]:
        if frontend in self.dead:
            return FENCED
        request = self.requests[rid]
        if not request.terminal:
            request.readers[frontend] = readers
            if readers:
                request.deadlines.pop("grace", None)
        return (request.status,)

    def disconnect(self, rid: str, frontend: str, readers: int, connection: str, admitting: bool) -> tuple[object, ...]:
        request = self.requests[rid]
        first = False
        if admitting and not request.connection:
            request.connection = connection
            first = connection == "closed_unexpectedly"
        if request.terminal:
            return ("terminal", first)
        if readers or request.frontend == frontend:
            request.readers[frontend] = readers
        else:
            request.readers.pop(frontend, None)
        return (self._judge(request) if connection == "closed_unexpectedly" else "continues", first)

    def cancel(self, rid: str, mode: str) -> tuple[object, ...]:
        request = self.requests[rid]
        return (self._cancel(request, mode, "operator:library"), request.status)

    def delete_content(self, rid: str) -> tuple[object, ...]:
        request = self.requests[rid]
        request.storage = Storage.DELETED
        return ("deleted" if request.terminal else "pending", request.status)

    # what a worker does

    def append(self, worker: str, pieces: Sequence[Piece]) -> tuple[object, ...]:
        if worker in self.dead:
            return FENCED
        refused = []
        for index, piece in enumerate(pieces):
            why = self._append(piece, worker)
            if why:
                refused.append((index, why))
        return tuple(refused)

    def _append(self, piece: Piece, worker: str) -> str:
        request = self.requests[piece.rid]
        if not request.has_stream:
            return "gone"
        if piece.is_lost and (request.status, request.worker) == ("running", worker):
            return "fenced"
        if request.closed:
            return "closed"
        if piece.attempt < request.attempt or piece.attempt <= request.given_back:
            return "fenced"
        if piece.number > request.number:
            request.pieces.append(piece)
            if piece.first:
                request.deadlines.pop("first_token", None)
        return ""

    def finish(
        self,
        rid: str,
        worker: str,
        attempt: int,
        outcome: tuple[str, str, str],
        last: int,
        remainder: Piece | None,
    ) -> tuple[object, ...]:
        status, error_type, finish_reason = outcome
        request = self.requests[rid]
        self.pending_cancellations[worker].discard(rid)
        if request.terminal:
            return ("already", request.status)
        if (request.status, request.worker, request.attempt) != ("running", worker, attempt):
            return FENCED
        if request.cancel_mode == "kill" or (request.cancel_mode == "stop" and status == "cancelled"):
            self._terminate(request, "cancelled", "cancelled")
            return ("done", "cancelled")
        have = request.number - last + len(remainder.texts) if remainder else -1
        if remainder and have >= 0 and request.number < last:
            request.pieces.append(remainder._replace(texts=remainder.texts[have:]))
        if status == "completed" and request.number != last:
            return ("incomplete", request.number)
        if status == "completed" and request.cancel_mode == "stop":
            finish_reason = "stop"
        self._terminate(request, status, error_type, finish_reason)
        return ("done", status)

    def requeue_attempt(self, rid: str, worker: str, attempt: int, failure: Failure | None) -> tuple[object, ...]:
        request = self.requests[rid]
        if (request.status, request.worker, request.attempt) != ("running", worker, attempt):
            return ("not",)
        if failure is None:
            return (self._move(request, uses_attempt=False, error_type="worker_lost"),)
        return (self._move(request, uses_attempt=failure.uses_attempt, error_type="unavailable"),)

    # what any replica does

    def reconcile_shard(self, replica: str, role: Role, rids: Sequence[str] | None) -> tuple[object, ...]:
        if not self.members.heartbeat(replica, role):
            return FENCED
        owner = "worker" if role == Role.WORKER else "frontend"
        held = {r.rid for r in self.requests.values() if not r.terminal and getattr(r, owner) == replica}
        orders = {(rid, self._order_mode(rid, replica)) for rid in self.pending_cancellations[replica]}
        lost = set(rids) - held if rids is not None else set()
        not_held_locally = held - set(rids) if rids is not None else set()
        return (len(held), orders if role == Role.WORKER else set(), lost, not_held_locally)

    def _order_mode(self, rid: str, worker: str) -> str:
        request = self.requests[rid]
        runs_here = request.status == "running" and request.worker == worker
        return request.cancel_mode if runs_here and request.cancel_mode else "kill"

    def sweep(self, unserved: Sequence[str]) -> tuple[object, ...]:
        before = sum(self.totals.values())
        overdue = sorted(
            (due, kind, request.rid)
            for request in self.requests.values()
            for kind, due in request.deadlines.items()
            if self._is_due(due)
        )
        for _, kind, rid in overdue:
            request = self.requests[rid]
            if request.deadlines.pop(kind, None) is not None and not request.kill_pending:
                self._overdue(request, kind)
        for request in list(self.requests.values()):
            if request.status == "queued" and request.labels.model in unserved:
                self._terminate(request, "failed", "unavailable")
        return (sum(self.totals.values()) - before,)

    def _overdue(self, request: Tracked, kind: str) -> None:
        if kind == "grace":
            if request.on_disconnect == "cancel" and not self._read(request):
                self._cancel(request, "kill", "disconnect")
        elif not (kind == "queue" and request.status != "queued") and not (kind == "first_token" and request.number):
            request.cancelled_by = f"limit:{LIMIT_ERRORS[kind]}"
            self._end_from_outside(request, "failed", LIMIT_ERRORS[kind])

    def reap(
        self, replica: str, role: Role, running: Sequence[str], find_new_owner: Mapping[str, str]
    ) -> tuple[object, ...]:
        """`running`: in which order Redis has what runs there, as virtual times depend on the order of requeues.

        `find_new_owner`: who got each request in fact. The choice among those who may have it is Redis's.
        """
        frontends = {name for name, (role, _) in self.members.leases.items() if role == Role.FRONTEND}
        ended = moved = waiting = 0
        if role == Role.WORKER:
            for request in sorted(self._running_on(replica), key=lambda request: running.index(request.rid)):
                requeued = self._move(request, uses_attempt=True, error_type="worker_lost") == "requeued"
                moved, ended = moved + requeued, ended + (not requeued)
            self.pending_cancellations[replica].clear()
            self.taken.pop(replica, None)
            return (True, ended, moved, waiting)
        for request in [r for r in self.requests.values() if r.frontend == replica and not r.terminal]:
            readers = {f for f, n in request.readers.items() if n and f != replica and f not in self.dead}
            candidates = readers or frontends
            may_outlive = request.on_disconnect == "continue" or request.grace_secs or request.kill_pending
            if not readers and not may_outlive:
                self._end_from_outside(request, "failed", "frontend_lost")
                ended += 1
            elif not candidates:
                waiting += 1
            else:
                self._reassign(request, replica, find_new_owner[request.rid], candidates, bool(readers))
                moved += 1
        for request in self.requests.values():
            if not request.terminal and request.frontend != replica and request.readers.get(replica):
                del request.readers[replica]
                ended += self._judge(request) == "terminal"
        return (waiting == 0, ended, moved, waiting)

    def _reassign(self, request: Tracked, dead: str, new_owner: str, candidates: set[str], read: bool) -> None:
        assert new_owner in candidates, f"{request.rid} was given to {new_owner}, not to one of {candidates}"
        request.readers.pop(dead, None)
        request.readers.setdefault(new_owner, 0)
        request.frontend, request.moved = new_owner, True
        if request.on_disconnect == "cancel" and not read and request.cancel_mode != "kill":
            request.deadlines.setdefault("grace", self._due(request.grace_secs))

    # transitions shared by the above

    def _judge(self, request: Tracked) -> str:
        """Cancel a request, begin its grace or let it continue, after it has lost a reader."""
        if request.on_disconnect == "continue" or self._read(request):
            return "continues"
        if request.grace_secs:
            request.deadlines.setdefault("grace", self._due(request.grace_secs))
            return "grace"
        return self._cancel(request, "kill", "disconnect")

    def _running_on(self, worker: str) -> list[Tracked]:
        return [r for r in self.requests.values() if r.status == "running" and r.worker == worker]

    def _read(self, request: Tracked) -> bool:
        return any(count and frontend not in self.dead for frontend, count in request.readers.items())

    def _due(self, secs: int) -> tuple[int, int]:
        self._ticks += 1
        return self.members.now + secs, self._ticks

    def _is_due(self, due: tuple[int, int] | None) -> bool:
        return due is not None and due[0] <= self.members.now

    def _order(self, worker: str, rid: str) -> None:
        if worker not in self.dead:
            self.pending_cancellations[worker].add(rid)

    def _cancel(self, request: Tracked, mode: str, by: str) -> str:
        if request.terminal:
            return "terminal"
        if request.cancel_mode == "kill" or (request.cancel_mode == "stop" and mode == "stop"):
            return "pending"
        request.cancel_mode, request.cancelled_by = mode, by
        if request.status == "queued":
            self._terminate(request, "cancelled", "cancelled")
            return "terminal"
        request.closed = mode == "kill"
        self._order(request.worker, request.rid)
        return "pending"

    def _move(self, request: Tracked, *, uses_attempt: bool, error_type: str) -> str:
        used_up = uses_attempt and request.failures + 1 >= self.max_attempts
        if request.cancel_mode:
            self._terminate(request, "cancelled", "cancelled")
        elif (request.pieces and not request.resumable) or used_up:
            self._terminate(request, "failed", error_type)
        else:
            request.failures += uses_attempt
            self.queues.settle(request, 0)
            request.status, request.worker, request.given_back = "queued", "", request.attempt
            self._queue_again(request)
            return "requeued"
        return "ended"

    def _queue_again(self, request: Tracked) -> None:
        self.queues.enqueue(request, again=True)
        if request.queue_limit_secs:
            request.deadlines.setdefault("queue", self._due(request.queue_limit_secs))

    def _end_from_outside(self, request: Tracked, status: str, error_type: str) -> None:
        """Ended by another than its worker, which is told to stop."""
        worker, running = request.worker, request.status == "running"
        self._terminate(request, status, error_type)
        if running:
            self._order(worker, request.rid)

    def _terminate(self, request: Tracked, status: str, error_type: str, finish_reason: str = "") -> None:
        assert not request.terminal, f"{request.rid} would end twice"
        self.queues.remove(request)
        self.queues.settle(request, request.number, yields=True)
        if request.worker:
            self.pending_cancellations[request.worker].discard(request.rid)
        if request.status == "running" and status == "completed":
            self.queues.note_answer(request)
        request.status, request.error_type, request.finish_reason = status, error_type, finish_reason
        request.closed = True
        request.next_look = None
        request.deadlines.clear()
        request.readers.clear()
        self.totals[(*request.labels, "success" if status == "completed" else "error", error_type)] += 1
