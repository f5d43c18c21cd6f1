"""Make a failing plan shorter: leave out faults, requests and visits for as long as it fails in the same way."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TypeVar

from tests.simulation.plan import Plan, Request

_MOST_TRIES = 400
Part = TypeVar("Part")


def kind_of(violation: str) -> str:
    """Return what kind of violation this is, without ids, numbers and texts."""
    return re.sub(r"'[^']*'|\b\w*\d[\w.@-]*|\{.*?\}|\[.*?\]", "#", violation)


def kinds_of(violations: Sequence[str]) -> set[str]:
    return set(map(kind_of, violations))


class Shrinker:
    """Shrinks plans. `violations_of` simulates a plan and returns what was violated."""

    def __init__(self, violations_of: Callable[[Plan], Sequence[str]]) -> None:
        self._violations_of = violations_of
        self._tries = 0

    def shrink(self, plan: Plan, violation: str) -> Plan:
        """Return a shorter plan that has a violation of the same kind."""
        kind = kind_of(violation)

        def fails(candidate: Plan) -> bool:
            self._tries += 1
            return self._tries <= _MOST_TRIES and kind in kinds_of(self._violations_of(candidate))

        before = None
        while before != plan and self._tries <= _MOST_TRIES:
            before = plan
            for fewer in _shorter(plan.requests):
                if fails(candidate := replace(plan, requests=fewer)):
                    plan = candidate
                    break
            for fewer_faults in _shorter(plan.faults):
                if fails(candidate := replace(plan, faults=fewer_faults)):
                    plan = candidate
                    break
            for candidate in _simpler(plan):
                if fails(candidate):
                    plan = candidate
                    break
        return plan


def _shorter(parts: tuple[Part, ...]) -> Iterator[tuple[Part, ...]]:
    """Yield tuples without some of the parts, those that lack most first."""
    size = len(parts)
    while size >= 1:
        for begin in range(0, len(parts), size):
            yield parts[:begin] + parts[begin + size :]
        size //= 2


def _simpler(plan: Plan) -> Iterator[Plan]:
    """Yield plans in which one request does less."""
    if plan.shards > 1:
        yield replace(plan, shards=1)
    if plan.preempt:
        yield replace(plan, preempt=False)
    for index, request in enumerate(plan.requests):
        for simpler in _simpler_requests(request):
            yield replace(plan, requests=(*plan.requests[:index], simpler, *plan.requests[index + 1 :]))


def _simpler_requests(request: Request) -> Iterator[Request]:
    for fewer in _shorter(request.visits):
        yield request._replace(visits=fewer)
    plain = {
        "leave_after": -1,
        "on_disconnect": "cancel",
        "grace_secs": 0.0,
        "key": "",
        "owner": "",
        "weight": 1.0,
        "priority": 0,
        "parent": "",
        "inflight_limit": 0,
        "queue_secs": 0.0,
        "first_token_secs": 0.0,
        "deadline_secs": 0.0,
    }
    for name, value in plain.items():
        if getattr(request, name) != value:
            yield request._replace(**{name: value})  # type: ignore[arg-type]
    if request.words > 1:
        yield request._replace(words=request.words // 2)
