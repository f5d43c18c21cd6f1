"""Read what the simulated Redis has of one request, in the terms of the specification."""

from __future__ import annotations

import orjson

from lifecycle.store.results import queued_and_running
from tests.simulation.server.database import Database
from tests.simulation.server.values import HIGHEST, Hash, Stream
from tests.spec.record import Record, Start, Token

_CLOSED = HIGHEST[0]


def observe(database: Database, prefix: bytes, rid: bytes) -> Record:
    """Return a request as Redis has it. Raises ValueError when its hash and its stream contradict each other."""
    fields, stream = database.values.get(prefix + b"request:" + rid), database.values.get(prefix + b"tokens:" + rid)
    if not isinstance(fields, Hash):
        return Record()

    def field(name: bytes) -> str:
        return fields.get(name, b"").decode()

    starts, text, closed = _stream(stream if isinstance(stream, Stream) else Stream())
    status, frontend = field(b"status"), field(b"frontend")
    inflight = database.values.get(prefix + b"inflight:" + frontend.encode())
    record = Record(
        status=status,
        frontend=frontend,
        counted=(frontend, status) if isinstance(inflight, Hash) and rid in inflight else None,
        worker=field(b"worker"),
        starts=starts,
        failures=int(field(b"failures") or "0"),
        resumable=field(b"resumable") == "1",
        cancel=field(b"cancel_mode"),
        text=text,
        closed=closed,
    )
    record = record._replace(ends=int(record.terminal))
    nonce = str(record.start.nonce) if record.start is not None else ""
    if (record.attempt, nonce) != (int(field(b"attempt")), field(b"start_nonce")):
        raise ValueError(f"attempt {field(b'attempt')} ({field(b'start_nonce')}), and the stream has {record.start}")
    return record


def _stream(stream: Stream) -> tuple[tuple[Start, ...], tuple[Token, ...], bool]:
    """Return the openings of attempts, the tokens, and whether nothing can follow."""
    starts: list[Start] = []
    text: list[Token] = []
    for entry_id in stream.ids:
        name, value = stream.entries[entry_id][:2]
        attempt, number = entry_id
        if name == b"s":
            starts.append(Start(attempt, stream.entries[entry_id][5].decode(), text[-1] if text else None))
        elif name == b"t":
            count = len(orjson.loads(value))
            text += [Token(each, starts[-1]) for each in range(number - count + 1, number + 1)]
    return tuple(starts), tuple(text), stream.last_id == HIGHEST


def counted_of(database: Database, prefix: bytes, frontend: bytes) -> tuple[int, int]:
    """Return how many queued and running requests are counted as a frontend's."""
    counts = database.values.get(prefix + b"counts:" + frontend)
    number = sum(int(value) for value in counts.values()) if isinstance(counts, Hash) else 0
    return queued_and_running(number)


def ends_of(database: Database, prefix: bytes) -> int:
    """Return how many ends are counted in a shard."""
    totals = database.values.get(prefix + b"totals")
    if not isinstance(totals, Hash):
        return 0
    return sum(int(value) for name, value in totals.items() if not name.startswith(b'["reaped"'))
