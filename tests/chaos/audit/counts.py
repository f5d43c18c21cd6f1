"""Check the readings of the inflight count: each must lie between what must and what can have been inflight.

A reading may be of any moment between its call and its answer. What must have been inflight was known to be accepted
before that time, and was seen not to have ended after it. What can have been inflight was asked for before that
time was over, and was not known to have ended when it began.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from tests.chaos.audit import codes
from tests.chaos.audit.ends import end_of
from tests.chaos.audit.history import Call, History, Operation


class Life(NamedTuple):
    """Hold what is known about the time in which one request was inflight."""

    asked_at: float  # not inflight before
    accepted_at: float  # inflight from here
    alive_at: float  # until here at least
    ended_at: float  # not inflight after


def life_of(history: History, calls: Sequence[Call]) -> Life | None:
    """Return what the calls of one request say about its life; None when nobody asked for it."""
    admissions = [call for call in calls if call.operation is Operation.ADMIT]
    if not admissions:
        return None
    alive = [call for call in calls if call.record is not None and not call.record.terminal]
    asked_at = min(call.invoked_at for call in admissions)
    accepted_at = min((call.completed_at for call in alive), default=math.inf)
    accepted_at = min([accepted_at, *(call.answered_at for call in admissions if call.code == 200 and call.stream)])
    alive_at = max((call.invoked_at for call in alive), default=-math.inf)
    ended_at = min((call.completed_at for call in calls if end_of(call) is not None), default=math.inf)
    if all(call.code in (400, 404, 409, 413, 429) for call in admissions):
        ended_at = asked_at
    elif all(call.code == 503 for call in admissions):
        refused_at = max(call.completed_at for call in admissions)
        if not history.disturbed(asked_at, refused_at):
            ended_at = min(ended_at, refused_at + history.settle_secs)
    return Life(asked_at, accepted_at, alive_at, ended_at)


def faults_of(history: History) -> list[str]:
    """Return the readings that no serial order of the calls allows."""
    lives = [life for calls in history.by_request().values() if (life := life_of(history, calls)) is not None]
    found: list[str] = []
    for call in history.calls:
        if call.operation is not Operation.INFLIGHT:
            continue
        found += codes.of_one(history, call)
        if call.code != 200:
            continue
        if history.may_have_lost(call.invoked_at - history.settle_secs, call.completed_at):
            continue
        least = sum(life.accepted_at < call.invoked_at and life.alive_at > call.completed_at for life in lives)
        most = sum(life.asked_at < call.completed_at and life.ended_at >= call.invoked_at for life in lives)
        # What a dead or cut off frontend holds is not counted until somebody has taken it over.
        if call.total < least and not history.disturbed(call.invoked_at, call.completed_at):
            found.append(_line(call, f"at least {least}"))
        if call.total > most and not history.shared:
            found.append(_line(call, f"at most {most}"))
    return found


def _line(call: Call, bound: str) -> str:
    return f"inflight at {call.replica or 'a frontend'}, {call.invoked_at:.2f} s: {call.total}, {bound} is possible"
