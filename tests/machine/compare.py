"""Comparing the data in Redis with the reference model after every step."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Any

import orjson
import pytest

from lifecycle.store.results import queued_and_running
from tests.machine.actual import Actual
from tests.machine.reference import ReferenceModel
from tests.machine.words import Piece, Tracked, body_of

_FIELDS = (
    "status",
    "attempt",
    "error_type",
    "finish_reason",
    "cancel_mode",
    "cancelled_by",
    "worker",
    "frontend",
    "storage",
    "output_tokens",
    "parent",
    "level",
)


class Comparison:
    """Holds for the replicas given to `check`: all that ever were, the dead too."""

    def __init__(self, actual: Actual, reference: ReferenceModel, models: Iterable[str]) -> None:
        self.actual = actual
        self.reference = reference
        self.models = tuple(models)
        self._pushed: defaultdict[str, defaultdict[str, list[Piece]]] = defaultdict(lambda: defaultdict(list))

    async def check(self, frontends: Iterable[str], workers: Iterable[str]) -> None:
        checks = [self._check_queues(), self._check_active(), self._check_totals(), self._check_stored()]
        checks += [self._check_with_parent()]
        checks += [self._check_children(request) for request in self.reference.requests.values()]
        checks += [self._check_stream(request) for request in self.reference.requests.values()]
        for frontend in frontends:
            checks += [self._check_counts(frontend), self._check_pushes(frontend)]
        checks += [self._check_running(worker) for worker in workers]
        # First the records: they say where in the queues the requests now are.
        await asyncio.gather(*map(self._check_record, self.reference.requests.values()))
        await asyncio.gather(*checks)  # at once: they share pipelines

    async def _do(self, command: str, name: str, *args: Any) -> Any:
        return await self.actual.store.command(command, self.actual.prefix + name, *args)

    async def _check_record(self, request: Tracked) -> None:
        key = f"request:{request.rid}"
        values = await self._do("HMGET", key, *_FIELDS)
        found = dict(zip(_FIELDS, (_text(v) for v in values), strict=True))
        if not request.terminal:
            found.pop("output_tokens")  # of a running request it is read from the stream
        expected = {
            "status": request.status,
            "attempt": str(request.attempt),
            "error_type": request.error_type,
            "finish_reason": request.finish_reason,
            "cancel_mode": request.cancel_mode,
            "cancelled_by": request.cancelled_by,
            "worker": request.worker,
            "frontend": request.frontend,
            "storage": request.storage,
            "output_tokens": str(request.number),
            "parent": request.parent,
            "level": str(request.level) if request.parent else "",
        }
        assert found == {name: expected[name] for name in found}, request.rid
        readers = await self._do("HGETALL", f"readers:{request.rid}")
        assert {_text(f): int(n) for f, n in _pairs(readers)} == request.readers

    async def _check_stored(self) -> None:
        for request in self.reference.requests.values():
            assert bool(await self._do("EXISTS", f"body:{request.rid}")) == request.has_body, request.rid
        kept: set[str] = set()
        for owner in ("", "x", "y"):
            members = [_text(member).partition("|") for member in await self._do("ZRANGE", f"stored:{owner}", 0, -1)]
            kept |= {rid for _, _, rid in members}
            total = _text(await self._do("GET", f"stored_bytes:{owner}"))
            assert int(total or 0) == sum(int(size) for size, _, _ in members), "the sum of the kept content"
        assert kept == {r.rid for r in self.reference.requests.values() if r.terminal and r.has_body}

    async def _check_stream(self, request: Tracked) -> None:
        if not request.has_stream:
            assert not await self._do("EXISTS", f"tokens:{request.rid}")
            return
        pieces, closed = await self._stream(request.rid)
        assert pieces == request.pieces, f"the token stream of {request.rid}"
        assert closed == request.closed
        attempts = [piece.attempt for piece in pieces]
        assert attempts == sorted(attempts), "a token of an older attempt after one of a newer"
        number = 0
        for piece in pieces:
            number += len(piece.texts)
            assert piece.number == number, "a gap or a repetition in the stream"

    async def _stream(self, rid: str) -> tuple[list[Piece], bool]:
        pieces, closed = [], False
        for entry_id, flat in await self._do("XRANGE", f"tokens:{rid}", "-", "+"):
            values = dict(_pairs(flat))
            assert not closed, "something follows the end"
            if b"t" in values:
                pieces.append(_piece(rid, entry_id.decode(), orjson.loads(values[b"t"])))
            closed = b"e" in values
            if closed:
                last = pieces[-1].number if pieces else 0
                assert orjson.loads(values[b"e"])["last"] == last, "the end says where the tokens end"
        return pieces, closed

    async def _check_queues(self) -> None:
        for model in self.models:
            queue = self.reference.queues.models[model]
            priorities = [int(priority) for priority in await self._do("ZRANGE", f"levels:{model}", 0, -1)]
            assert priorities == sorted(priority for priority, level in queue.levels.items() if level)
            counts: Counter[str] = Counter()
            for priority, level in queue.levels.items():
                flat = await self._do("ZRANGE", f"level:{priority}|{model}", 0, -1, "WITHSCORES")
                found = {_text(owner): float(score) for owner, score in _pairs(flat)}
                assert found == pytest.approx(level), "the virtual times of the flows"
                for owner in level:
                    flow = queue.flows[priority, owner]
                    key = f"flow:{priority}|{len(owner)}|{owner}|{model}"
                    rids = [_text(rid) for rid in await self._do("ZRANGE", key, 0, -1)]
                    assert rids == [request.rid for request in flow], "the order of a flow"
                    counts[owner] += len(flow)
            queued = {
                _text(owner): int(number) for owner, number in _pairs(await self._do("HGETALL", f"queued:{model}"))
            }
            assert queued == counts
            times = _pairs(await self._do("ZRANGE", f"virtual_times:{model}", 0, -1, "WITHSCORES"))
            assert {_text(owner): float(time) for owner, time in times} == pytest.approx(queue.times)
            workers = [_text(worker) for worker in await self._do("ZRANGE", f"waiting:{model}", 0, -1)]
            assert workers == queue.waiting, "the workers that wait for a bell"
        waiting: Counter[str] = Counter()
        for request in self.reference.requests.values():
            if request.status == "queued":
                waiting[request.labels.model] += len(body_of(request.rid))
        found_bytes = {_text(model): int(size) for model, size in _pairs(await self._do("HGETALL", "queued_bytes"))}
        assert found_bytes == waiting, "the bytes of the bodies that wait"

    async def _check_active(self) -> None:
        active = {_text(rid) for rid in await self._do("ZRANGE", "active", 0, -1)}
        assert active == {r.rid for r in self.reference.requests.values() if not r.terminal}
        deadlines = {_text(member) for member in await self._do("ZRANGE", "deadlines", 0, -1)}
        assert deadlines == {f"{kind}|{r.rid}" for r in self.reference.requests.values() for kind in r.deadlines}

    async def _check_with_parent(self) -> None:
        """Check which requests are still to be ended with their parents."""
        found = {_text(rid) for rid in await self._do("ZRANGE", "with_parent", 0, -1)}
        assert found == {r.rid for r in self.reference.requests.values() if r.next_look is not None}

    async def _check_children(self, request: Tracked) -> None:
        key = f"children:{request.rid}"
        found = {_text(rid) for rid in await self._do("ZRANGE", key, 0, -1)}
        assert found == self.reference.children[request.rid]
        if found and request.terminal:
            longest_ms = self.actual.store.settings.retention_secs * 1000
            assert 0 < int(await self._do("PTTL", key)) <= longest_ms, "the list goes with the parent's record"

    async def _check_totals(self) -> None:
        totals = Counter(
            {tuple(orjson.loads(name)): int(number) for name, number in _pairs(await self._do("HGETALL", "totals"))}
        )
        for role in ("frontend", "worker"):
            totals.pop(("reaped", role), None)
        assert totals == self.reference.totals
        assert totals.total() == sum(r.terminal for r in self.reference.requests.values()), "each is counted once"

    async def _check_counts(self, frontend: str) -> None:
        counts: Counter[str] = Counter()
        for labels, number in _pairs(await self._do("HGETALL", f"counts:{frontend}")):
            queued, running = queued_and_running(int(number))
            counts["queued" + _text(labels)] += queued
            counts["running" + _text(labels)] += running
        held = [r for r in self.reference.requests.values() if r.frontend == frontend and not r.terminal]
        assert counts == Counter(r.status + orjson.dumps(tuple(r.labels)).decode() for r in held)
        inflight = await self._do("HKEYS", f"inflight:{frontend}")
        assert {_text(rid) for rid in inflight} == {r.rid for r in held}

    async def hear(self, frontend: str) -> None:
        """Take what it was pushed so far; to be called before it dies."""
        items = await self.actual.pushed(frontend)
        assert not items or frontend not in self.reference.dead, "something was pushed to the dead"
        for rid, entry_id, payload in items:
            if isinstance(payload, list):
                self._pushed[frontend][rid].append(_piece(rid, entry_id, payload))

    async def _check_pushes(self, frontend: str) -> None:
        """Check that the owner was pushed the whole stream, or everything from when the request moved to it."""
        await self.hear(frontend)
        pushed = self._pushed[frontend]
        for rid, pieces in pushed.items():
            stream = self.reference.requests[rid].pieces
            assert [p for p in stream if p in pieces] == pieces, (
                "pushed what is not in the stream, twice or out of order"
            )
        for request in self.reference.requests.values():
            if request.frontend == frontend and frontend not in self.reference.dead:
                got = pushed[request.rid]
                assert got == request.pieces[len(request.pieces) - len(got) :], "the owner was not pushed the tail"
                if not request.moved:
                    assert got == request.pieces, "the owner was not pushed everything"

    async def _check_running(self, worker: str) -> None:
        flat = _pairs(await self._do("HGETALL", f"running:{worker}"))
        # The value begins with the usual mark of an append, the nonce of the start.
        running = {_text(rid): set(_text(value)[9:].split()) for rid, value in flat}
        held = [r for r in self.reference.requests.values() if r.worker == worker and r.status == "running"]
        assert running == {r.rid: r.readers.keys() for r in held}, "an append finds the readers here"
        orders = {_text(rid) for rid in await self._do("SMEMBERS", f"pending_cancellations:{worker}")}
        assert orders == self.reference.pending_cancellations[worker]


def _piece(rid: str, entry_id: str, texts: list[str]) -> Piece:
    attempt, _, number = entry_id.partition("-")
    return Piece(rid, int(attempt), int(number), tuple(texts))


def _pairs(flat: list[bytes]) -> Iterable[tuple[bytes, bytes]]:
    return zip(flat[::2], flat[1::2], strict=True)


def _text(value: bytes | None) -> str:
    return (value or b"").decode()
