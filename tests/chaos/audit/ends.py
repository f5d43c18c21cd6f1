"""Check that each request has one end, and that a confirmed cancel is never undone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from tests.chaos.audit.history import TERMINAL, Call, History, Operation

OF_THE_CONNECTION = ("unavailable", "frontend_lost", "state_lost", "slow_consumer")
"""Error frames that end a reader and say nothing about its request, which may go on elsewhere."""

_LOST_REPLICAS = ("worker_lost", "frontend_lost")


class End(NamedTuple):
    """Hold what one answer says about its request's end. `error_type` and `finished_at` are None where it does not say.

    Not `reached`: a reader is told of a cancel when it is asked for, and the request ends when its worker has stopped.
    """

    call: Call
    status: str
    error_type: str | None
    finished_at: float | None
    reached: bool = True

    def __str__(self) -> str:
        what = f"{self.status} {self.error_type or ''}".strip()
        return f"{what} (by {self.call.operation} at {self.call.completed_at:.2f} s)"

    def agrees_with(self, other: End) -> bool:
        pairs = ((self.error_type, other.error_type), (self.finished_at, other.finished_at))
        return self.status == other.status and all(a is None or b is None or a == b for a, b in pairs)

    def repeats(self, other: End) -> bool:
        """Return whether this is the same end, reached at another time."""
        return self._replace(finished_at=None).agrees_with(other)


def end_of(call: Call) -> End | None:
    """Return the end that an answer proves to be reached, or None."""
    end = told_by(call)
    return end if end is not None and end.reached else None


def told_by(call: Call) -> End | None:
    """Return the end that an answer tells, reached or not, or None."""
    if call.record is not None:
        if not call.record.terminal:
            return None
        return End(call, call.record.status, call.record.error_type, call.record.finished_at)
    if call.succeeded:
        return End(call, "completed", "", None)
    told = call.operation in (Operation.ADMIT, Operation.RESUME) and call.code in (200, 499) and call.error
    if not told or call.error in OF_THE_CONNECTION:
        return None
    if call.error == "cancelled":
        return End(call, "cancelled", call.error, None, reached=False)
    return End(call, "failed", call.error, None)


def faults_of(history: History, calls: Sequence[Call]) -> Iterator[str]:
    """Yield what is wrong with the ends of one request. Its calls are in the order of their completion."""
    yield from _two_ends(history, calls)
    yield from _status_goes_back(history, calls)
    yield from _cancel_undone(history, calls)


def _two_ends(history: History, calls: Sequence[Call]) -> Iterator[str]:
    first: End | None = None
    # Two servers, of which one is demoted later, may each admit a request of the same id.
    admissions = sum(call.operation is Operation.ADMIT and call.code == 200 for call in calls)
    for end in filter(None, map(told_by, calls)):
        if first is None:
            first = end
        elif not first.agrees_with(end):
            time_between = first.call.invoked_at, end.call.completed_at
            lost = history.may_have_lost(*time_between)
            again = end.error_type == "state_lost" or end.repeats(first) or history.short or admissions > 1
            if first.error_type in _LOST_REPLICAS or end.error_type in _LOST_REPLICAS:
                again = again or history.may_have_lost_ends(*time_between)
            if not (lost and again):
                yield f"two ends: {first} and {end}"
                return
            first = end  # a loss of data is told once, or an end that was lost is reached again


def _status_goes_back(history: History, calls: Sequence[Call]) -> Iterator[str]:
    """While data may be lost a restored record may be seen as it was; afterwards it must not be."""
    records = [call for call in calls if call.record is not None]
    for call in records:
        earlier = [other for other in calls if other.completed_at < call.invoked_at]
        assert call.record is not None
        if history.may_have_lost(call.invoked_at - history.settle_secs, call.completed_at):
            continue
        ended = next(filter(None, map(end_of, earlier)), None)
        if ended is not None and not call.record.terminal:
            yield f"{call.record.status} at {call.completed_at:.2f} s, after its end: {ended}"
            return
        attempts = [other.record.attempt for other in earlier if other.record is not None]
        lost = history.may_have_lost(calls[0].invoked_at, call.completed_at)
        if attempts and max(attempts) > call.record.attempt and not lost:
            yield f"attempt {call.record.attempt} at {call.completed_at:.2f} s, after attempt {max(attempts)}"
            return


def _cancel_undone(history: History, calls: Sequence[Call]) -> Iterator[str]:
    """Yield what a reader was given although a cancel had been confirmed.

    A loss of data may take tokens and the first cancel with its end: the worker reports the end again, or the cancel
    comes again, and the request ends as cancelled, without those tokens. A later cancel is then answered with that end.
    So what a reader had got before the cancel was confirmed is excused by a loss since it began to read; what it may
    have got afterwards only by a loss after the confirmation.
    """
    confirmed = next((c for c in calls if c.operation is Operation.CANCEL and c.code == 200), None)
    if confirmed is None:
        return
    if confirmed.record is None or confirmed.record.status not in TERMINAL:
        yield f"a cancel was answered 200 at {confirmed.completed_at:.2f} s with a request that has not ended"
        return
    # A replay that began later has all there will ever be, unless it is cut short.
    later = [
        call
        for call in calls
        if call.operation is Operation.RESUME and call.invoked_at > confirmed.completed_at and call.done
    ]
    if not later:
        return
    whole = min(later, key=lambda call: call.completed_at)
    last = max((token.position for token in whole.tokens), default=whole.after)
    if whole.error in OF_THE_CONNECTION:
        return
    for call in calls:
        ahead = max((token.position for token in call.tokens), default=(0, 0))
        since = call.invoked_at if call.completed_at <= confirmed.completed_at else confirmed.completed_at
        if ahead > last and not history.may_have_lost(since, whole.completed_at):
            yield (
                f"its cancel was confirmed at {confirmed.completed_at:.2f} s and all it had was up to {last}, "
                f"but a reader got {ahead} by {call.completed_at:.2f} s"
            )
            return
    for call in later:
        lost = history.short and history.may_have_lost(confirmed.completed_at, call.completed_at)
        if call.error == "" and confirmed.record.status == "cancelled" and not lost:
            yield f"a reader at {call.completed_at:.2f} s was told success, after a confirmed cancel"
            return
