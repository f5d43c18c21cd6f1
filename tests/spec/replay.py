"""Hold what the scripts do in a simulation to the specification.

After each script, every request that it has touched must be what one of the specification's steps for this script makes
of it, with the same answer; and the counts must be those of the requests.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any

import orjson

from lifecycle.store import script_loader
from lifecycle.store.merged_calls import MERGED
from tests.simulation.server.database import Database
from tests.spec import scripts
from tests.spec.observed import counted_of, ends_of, observe
from tests.spec.record import QUEUED, RUNNING, Record, Start

Allowed = tuple[Record, str | None]  # the record afterwards, and the answer; None for any
Call = tuple[list[str], str]  # the arguments for one request, and the answer


class Replay:
    """Follows one server. `note` is called with each violation."""

    def __init__(self, database: Database, note: Callable[[str], None]) -> None:
        self.steps = 0  # transitions that were compared
        self._database = database
        self._note = note
        self._known: dict[tuple[bytes, bytes], Record] = {}

    def begin_anew(self) -> None:
        """Take the requests as they are: Redis has lost data."""
        for prefix, rid in list(self._known):
            self._known[prefix, rid] = observe(self._database, prefix, rid)

    def on_call(self, args: Sequence[bytes], reply: Any, touched: Sequence[bytes]) -> None:
        """Compare what a command has changed."""
        if args[0].upper() not in (b"EVALSHA", b"EVAL") or not isinstance(reply, (list, bytes, int, type(None))):
            return  # no transition, or refused before the first write
        name = script_loader.name_of(args[1].decode())
        prefix, given = args[3], [arg.decode(errors="replace") for arg in args[4:]]
        rids: dict[bytes, None] = {}
        counts: dict[bytes, None] = {}
        for key in touched:
            kind, _, rest = key.removeprefix(prefix).partition(b":")
            if kind in (b"request", b"tokens"):
                rids[rest] = None
            elif kind in (b"counts", b"totals"):
                counts[rest] = None
        for rid in rids:
            self._compare(name, prefix, rid, _calls_for(name, rid.decode(), given, reply))
        if counts:
            self._compare_counts(prefix, [frontend for frontend in counts if frontend])

    def _compare(self, name: str, prefix: bytes, rid: bytes, calls: Sequence[Call]) -> None:
        before = self._known.get((prefix, rid), Record())
        what = f"spec: {rid.decode()}: {name}"
        try:
            after = observe(self._database, prefix, rid)
        except (ValueError, IndexError) as failure:
            self._note(f"{what} has left {failure}")
            return
        self._known[prefix, rid] = after
        self.steps += 1
        states = [before]
        for given, answer in calls:
            allowed = [
                step for state in states for step in _allowed(name, state, rid.decode(), given, self._is_fenced(prefix))
            ]
            if name == "reap" and before.frontend == given[1]:
                allowed += _moved(before, after)
            states = [record for record, said in allowed if said is None or said == answer]
        if after not in states:
            answers = ", ".join(answer for _, answer in calls)
            self._note(f"{what} answered {answers}: {_difference(states[0] if states else before, after)}")

    def _is_fenced(self, prefix: bytes) -> Callable[[str], bool]:
        return lambda replica: prefix + b"fenced:" + replica.encode() in self._database.values

    def _compare_counts(self, prefix: bytes, frontends: Sequence[bytes]) -> None:
        known = [record for (where, _), record in self._known.items() if where == prefix]
        for frontend in frontends:
            name = frontend.decode()
            states = tuple(sum(record.counted == (name, status) for record in known) for status in (QUEUED, RUNNING))
            if (shown := counted_of(self._database, prefix, frontend)) != states:
                self._note(f"spec: {name} counts {shown} queued and running, and has {states}")
        ends = sum(record.ends for record in known)
        if (counted := ends_of(self._database, prefix)) != ends:
            self._note(f"spec: {counted} ends are counted, and {ends} requests have ended")


def _calls_for(name: str, rid: str, given: list[str], reply: Any) -> list[Call]:
    """Return what a script was asked to do with a request: once, or a few times when calls were merged."""
    if name not in MERGED:
        return [(given, _answer(reply))]
    calls: list[Call] = []
    first, answers = 1, iter(reply)
    while first < len(given):
        end = first + _arguments_of(name)
        if name == "admit":
            end += int(given[end - 1])
        answer = _answer(next(answers))
        if given[first] == rid:
            calls.append(([given[0], *given[first:end]], answer))
        first = end
    return calls


@cache
def _arguments_of(name: str) -> int:
    """Return how many arguments a request has in a call of a merged script, without further ones."""
    found = re.search(r"^local ARGUMENTS = (\d+)", script_loader.load(name).source, re.MULTILINE)
    assert found is not None
    return int(found[1])


def _moved(before: Record, after: Record) -> Iterator[Allowed]:
    """Yield a request under its new owner, whoever that is; it may be cancelled there at once."""
    if after.frontend != before.frontend:
        yield scripts.reap_frontend(before, before.frontend, after.frontend)[0], None


def _answer(reply: Any) -> str:
    first = reply[0] if isinstance(reply, list) and reply else reply
    return first.decode() if isinstance(first, bytes) else ""


def _difference(expected: Record, found: Record) -> str:
    parts = [
        f"{name} is {now!r} and not {then!r}"
        for name, then, now in zip(Record._fields, expected, found, strict=True)
        if then != now
    ]
    return "; ".join(parts) or "the answer is another"


def _allowed(
    name: str, before: Record, rid: str, given: list[str], is_fenced: Callable[[str], bool]
) -> Iterator[Allowed]:
    """Yield what the specification allows a script to make of a request."""
    step = _STEPS.get(name)
    if step is None:
        yield before, None  # scripts that change no request
    else:
        yield from step(before, rid, given, is_fenced)


Fenced = Callable[[str], bool]


def _admit(before: Record, rid: str, given: list[str], is_fenced: Fenced) -> Iterator[Allowed]:
    yield scripts.admit(before, given[6], fenced=is_fenced(given[6]))


def _take(before: Record, rid: str, given: list[str], is_fenced: Fenced) -> Iterator[Allowed]:
    worker, nonce, resumable = given[1], given[3], given[7] == "1"
    record, answer = scripts.take(before, worker, nonce, fenced=is_fenced(worker), resumable=resumable)
    yield record, None
    if answer == "run" and before.status == QUEUED:
        yield scripts.fail(before)[0], None  # it is past a limit


def _append(before: Record, rid: str, given: list[str], is_fenced: Fenced) -> Iterator[Allowed]:
    worker = given[1]
    index = given.index(rid, 2)
    number, mark = int(given[index + 1].partition("-")[2]), given[index + 3]
    attempt, nonce = int(given[index + 1].partition("-")[0]), mark.partition("+")[0].partition("!")[0]
    start = before.start if before.start is not None and before.start.attempt == attempt else None
    if start is None or nonce not in ("", start.nonce):
        start = Start(attempt, nonce, None)
    first = number - len(orjson.loads(given[index + 2])) + 1
    known = int(mark.partition("!")[2]) if "!" in mark else None
    record, _ = scripts.append(before, worker, start, number, fenced=is_fenced(worker), before=known, first=first)
    yield record, None


def _finish(before: Record, rid: str, given: list[str], is_fenced: Fenced) -> Iterator[Allowed]:
    worker, attempt, status, last = given[2], int(given[3]), given[4], int(given[8])
    remainder = last - int(given[10]) if given[9] else 0
    start = before.start
    if start is None or start.attempt != attempt or given[21] not in ("", start.nonce):
        start = Start(attempt, given[21], None)
    yield scripts.finish(before, worker, start, status, last, remainder)
    yield before, "overlap"


def _cancel(before: Record, rid: str, given: list[str], is_fenced: Fenced) -> Iterator[Allowed]:
    yield scripts.cancel(before, given[2])


def _requeue(before: Record, rid: str, given: list[str], is_fenced: Fenced) -> Iterator[Allowed]:
    yield scripts.requeue(before, given[2], int(given[3]), int(given[7]), uses_attempt=given[4] == "1")


def _fail(before: Record, rid: str, given: list[str], is_fenced: Fenced) -> Iterator[Allowed]:
    yield scripts.fail(before)
    yield before, "moved"


def _lost_start(before: Record, rid: str, given: list[str], is_fenced: Fenced) -> Iterator[Allowed]:
    yield scripts.lost_start(before, Start(int(given[2]), given[3], None), given[4])


def _disconnect(before: Record, rid: str, given: list[str], is_fenced: Fenced) -> Iterator[Allowed]:
    yield before, None
    yield scripts.cancel(before, "kill")[0], None


def _reap(before: Record, rid: str, given: list[str], is_fenced: Fenced) -> Iterator[Allowed]:
    replica, role, uses_attempt, max_attempts = given[1], given[2], given[3] == "1", int(given[5])
    yield before, None  # it is noted that one of its readers has left
    if not is_fenced(replica):
        return
    if role == "worker":
        yield scripts.reap_worker(before, replica, max_attempts, uses_attempt=uses_attempt)[0], None
        return
    yield scripts.cancel(before, "kill")[0], None  # its last reader was there
    if before.frontend == replica:
        yield scripts.reap_frontend(before, replica, None)[0], None


def _sweep(before: Record, rid: str, given: list[str], is_fenced: Fenced) -> Iterator[Allowed]:
    yield before, None
    yield scripts.fail(before)[0], None  # it is past a limit, or nobody serves its model
    yield scripts.cancel(before, "kill")[0], None  # nobody has come back to read it


_STEPS: dict[str, Callable[[Record, str, list[str], Fenced], Iterator[Allowed]]] = {
    "admit": _admit,
    "take": _take,
    "append": _append,
    "finish": _finish,
    "cancel": _cancel,
    "requeue": _requeue,
    "fail": _fail,
    "lost_start": _lost_start,
    "disconnect": _disconnect,
    "reap": _reap,
    "sweep": _sweep,
}
