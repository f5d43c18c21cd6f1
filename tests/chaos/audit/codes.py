"""Check that each call is answered, and that 404, 409 and 503 are honest."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tests.chaos.audit.ends import end_of
from tests.chaos.audit.history import Call, History, How, Operation

_EXPECTED = {
    Operation.ADMIT: (0, 200, 404, 409, 429, 499, 500, 503, 504),
    Operation.RESUME: (0, 200, 204, 404, 429, 503),
    Operation.CANCEL: (0, 200, 202, 404, 503),
    Operation.STATUS: (0, 200, 404, 503),
    Operation.INFLIGHT: (0, 200, 503),
}


def faults_of(history: History, calls: Sequence[Call]) -> Iterator[str]:
    """Yield what is wrong with the status codes of one request's calls."""
    admissions = [call for call in calls if call.operation is Operation.ADMIT]
    accepted = [call for call in admissions if call.code == 200]
    for call in calls:
        yield from of_one(history, call)
    yield from _not_found(history, calls, accepted)
    yield from _in_use(history, admissions, accepted)
    yield from _refused_and_running(history, calls, admissions)


def of_one(history: History, call: Call) -> Iterator[str]:
    """Yield what is wrong with one answer by itself."""
    at = f"{call.operation} at {call.replica or 'a frontend'}, {call.invoked_at:.2f} s"
    if call.how is How.SILENT:
        yield f"{at}: it has waited for {call.completed_at - call.invoked_at:.0f} s"
    if call.how is How.BROKEN and not history.may_break(call):
        yield f"{at}: the connection broke after {call.completed_at - call.invoked_at:.2f} s"
    if call.code not in _EXPECTED[call.operation]:
        yield f"{at}: it was answered {call.code} ({call.error})"
    if call.code == 503 and not call.retry_after:
        yield f"{at}: 503 without Retry-After"


def _not_found(history: History, calls: Sequence[Call], accepted: Sequence[Call]) -> Iterator[str]:
    """A request that was accepted is known until its retention is over, wherever one asks.

    An answer proves that the request was accepted before it came, so its admission may be lost while it is on its way.
    """
    if not accepted:
        return
    first = min(accepted, key=lambda call: call.answered_at)
    known_at = first.answered_at
    for call in calls:
        if call.code != 404 or call.operation is Operation.ADMIT or call.invoked_at < known_at:
            continue
        if call.completed_at > known_at + history.retention_secs:
            continue
        if not history.may_have_lost(first.invoked_at, call.completed_at):
            yield f"{call.operation} at {call.invoked_at:.2f} s: 404, and it was accepted at {known_at:.2f} s"
            return


def _in_use(history: History, admissions: Sequence[Call], accepted: Sequence[Call]) -> Iterator[str]:
    accepted = [call for call in accepted if not call.attached]
    if len(accepted) > 1:
        first, second = sorted(accepted, key=lambda call: call.answered_at)[:2]
        again = second.invoked_at > first.completed_at + history.retention_secs
        if not again and not history.may_have_lost(first.invoked_at, second.completed_at):
            yield f"accepted twice, at {first.answered_at:.2f} and {second.answered_at:.2f} s"
    for call in admissions:
        others = [other for other in admissions if other is not call and other.invoked_at < call.completed_at]
        if call.code == 409 and call.error != "parent_ended" and not any(other.code != 404 for other in others):
            yield f"409 at {call.completed_at:.2f} s, and nobody else has used the id"


def _refused_and_running(history: History, calls: Sequence[Call], admissions: Sequence[Call]) -> Iterator[str]:
    """A call that was answered 503 has not begun to run, or is cancelled: soon afterwards it does not run.

    If only the reply to its admission was lost, a short request may complete before the frontend has given up. Where
    the frontend's lease has expired, the request goes on for a client that has begun to read it elsewhere.
    """
    refused = [call for call in admissions if call.code in (404, 503)]
    if not refused or any(call.code not in (404, 409, 503) for call in admissions):
        return
    if any(call.operation is Operation.RESUME and call.code == 200 for call in calls):
        return
    refused_at = max(call.completed_at for call in refused)
    waited_secs = refused_at - min(call.invoked_at for call in refused)
    took_secs = [call.record.took_secs for call in calls if call.record is not None]
    is_short = any(secs is not None and secs < waited_secs + history.settle_secs for secs in took_secs)
    for call in calls:
        late = call.invoked_at > refused_at + history.settle_secs
        runs = call.record is not None and not call.record.terminal
        if late and runs and not history.disturbed(refused_at, call.invoked_at):
            yield f"its call was answered 503 at {refused_at:.2f} s, and it runs at {call.completed_at:.2f} s"
            return
        end = end_of(call)
        short = is_short or (history.short and history.disturbed(refused_at, refused_at))
        if end is not None and end.status == "completed" and not short:
            yield f"its call was answered 503 at {refused_at:.2f} s, and it has completed"
            return
