"""The transitions, one function for each Lua script, on what Redis has of one request.

Each returns the record afterwards and the script's answer. A script may be called late, twice, or by somebody who never
gets the answer. So whatever is not allowed is answered, and changes nothing. `fenced` says that the lease of the caller
has ended in this shard.
"""

from __future__ import annotations

from tests.spec.record import (
    ABSENT,
    CANCELLED,
    COMPLETED,
    FAILED,
    QUEUED,
    RUNNING,
    Record,
    Start,
    Token,
    is_whole,
)

Done = tuple[Record, str]


def _end(record: Record, status: str) -> Record:
    """End a request, once: count its end, take it out of the count of its owner, and close its stream."""
    return record._replace(status=status, counted=None, closed=True, ends=record.ends + 1)


def admit(record: Record, frontend: int | str, *, fenced: bool) -> Done:
    """Queue a new request and count it as its frontend's. The same call again gets the same answer."""
    if record.status != ABSENT:
        return record, "admitted"
    if fenced:
        return record, "fenced"
    return Record(QUEUED, frontend, (frontend, QUEUED)), "admitted"


def take(record: Record, worker: int | str, nonce: int | str, *, fenced: bool, resumable: bool) -> Done:
    """Take a queued request and open its next attempt, in one step: nothing is handed out that is not a start.

    The same call again, with the same nonce, gets the same attempt again.
    """
    if fenced:
        return record, "fenced"
    if record.status == RUNNING:
        repeated = record.worker == worker and record.start is not None and record.start.nonce == nonce
        return record, "run" if repeated else "taken"
    if record.status != QUEUED:
        return record, "drop"
    if record.text and not resumable:  # the engine would begin anew: the tokens of two answers must not be joined
        return _end(record, FAILED), "worker_lost"
    start = Start(record.attempt + 1, nonce, record.text[-1] if record.text else None)
    started = record._replace(
        status=RUNNING,
        worker=worker,
        starts=(*record.starts, start),
        resumable=resumable,
        counted=record.counted and (record.counted[0], RUNNING),
    )
    return started, "run"


def append(
    record: Record,
    worker: int | str,
    start: Start,
    number: int,
    *,
    fenced: bool,
    before: int | None = None,
    first: int | None = None,
) -> Done:
    """Append the tokens from `first`, or only this one, up to a number.

    `before` is the number of the last one that the worker knows to be there, if it has to ask.
    """
    if fenced:
        return record, "fenced"
    if not record.runs(worker, start):
        return record, "closed" if record.closed else "fenced"
    if before is not None and record.number < before:
        return record, "gone"
    if record.closed:
        return record, "closed"
    if number <= record.number:
        return record, "accepted"  # it is there already
    added = range(number if first is None else first, number + 1)
    return record._replace(text=record.text + tuple(Token(each, start) for each in added)), "accepted"


def finish(record: Record, worker: int | str, start: Start, status: str, last: int, remainder: int = 0) -> Done:
    """End an attempt, with a `remainder` of so many last tokens; or confirm a cancel, whatever the worker says.

    An answer completes only if Redis has every token of it. Of another end, the remainder is left out when Redis has
    lost tokens before it.
    """
    if record.status == ABSENT:
        return record, "unknown"
    if record.terminal:
        return record, "already"
    if not record.runs(worker, start):
        return record, "fenced"
    if record.cancel == "kill" or (record.cancel == "stop" and status == CANCELLED):
        return _end(record, CANCELLED), "done"
    text = record.text
    if record.number >= last - remainder:
        text += tuple(Token(number, start) for number in range(record.number + 1, last + 1))
    if status == COMPLETED and (len(text) != last or not is_whole(text)):
        return record, "incomplete"
    return _end(record._replace(text=text), status), "done"


def cancel(record: Record, mode: str) -> Done:
    """Cancel a request: at once while it is queued; otherwise its worker confirms it. A kill closes the stream."""
    if record.status == ABSENT:
        return record, "unknown"
    if record.terminal:
        return record, "terminal"
    if record.cancel == "kill" or record.cancel == mode:
        return record, "pending"
    if record.status == QUEUED:
        return _end(record._replace(cancel=mode), CANCELLED), "terminal"
    return record._replace(cancel=mode, closed=record.closed or mode == "kill"), "pending"


def _requeue_or_end(record: Record, max_attempts: int, *, uses_attempt: bool) -> Done:
    """Queue a running request again, if another engine can do it and if it may be tried again; else end it."""
    if record.cancel:
        return _end(record, CANCELLED), "ended"
    failures = record.failures + uses_attempt
    if (record.text and not record.resumable) or (uses_attempt and failures >= max_attempts):
        return _end(record, FAILED), "ended"
    queued = record._replace(
        status=QUEUED, worker="", failures=failures, counted=record.counted and (record.counted[0], QUEUED)
    )
    return queued, "requeued"


def requeue(record: Record, worker: int | str, attempt: int, max_attempts: int, *, uses_attempt: bool) -> Done:
    """Return a running request to the queue: its worker leaves, cannot serve it, or does not run it."""
    if record.status == ABSENT:
        return record, "unknown"
    if record.status != RUNNING or record.worker != worker or record.attempt != attempt:
        return record, "not"
    return _requeue_or_end(record, max_attempts, uses_attempt=uses_attempt)


def fail(record: Record) -> Done:
    """Fail a request that nobody can serve as it should be. A pending kill is confirmed by its worker instead."""
    if record.status == ABSENT:
        return record, "unknown"
    if record.terminal:
        return record, "already"
    if record.status == RUNNING and record.cancel == "kill":
        return record, "killing"
    return _end(record, FAILED), "done"


def lost_start(record: Record, start: Start, status: str) -> Done:
    """End a request of which somebody has tokens of a start that Redis does not know."""
    if record.status == ABSENT:
        return record, "unknown"
    if any(start.same(known) for known in record.starts):
        return record, "known"
    if record.attempt > start.attempt and not any(known.attempt == start.attempt for known in record.starts):
        return record, "known"  # Redis cannot tell
    if record.terminal:
        return record, "already"
    if record.status == RUNNING and record.cancel == "kill":
        return record, "killing"
    return _end(record, status), "done"


def reap_worker(record: Record, worker: int | str, max_attempts: int, *, uses_attempt: bool = True) -> Done:
    """Take a request from a worker whose lease has ended."""
    if record.status != RUNNING or record.worker != worker:
        return record, "nothing"
    return _requeue_or_end(record, max_attempts, uses_attempt=uses_attempt)


def reap_frontend(record: Record, frontend: int | str, new_owner: int | str | None) -> Done:
    """Give a request of a frontend whose lease has ended to a new owner, or end it if only its client wanted it."""
    if not record.inflight or record.frontend != frontend:
        return record, "nothing"
    if new_owner is None:
        if record.status == RUNNING and record.cancel == "kill":
            return record, "killing"
        return _end(record, FAILED), "ended"
    return record._replace(frontend=new_owner, counted=record.counted and (new_owner, record.counted[1])), "moved"


def sweep_unserved(record: Record) -> Done:
    """Fail a queued request that no worker can take."""
    if record.status != QUEUED:
        return record, "nothing"
    return _end(record, FAILED), "ended"
