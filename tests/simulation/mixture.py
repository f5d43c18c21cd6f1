"""Let the requests of a plan start others, have owners of different weights, and have priorities.

Each plan has some of these or none. They are drawn by dice of their own, so the rest of a plan does not depend on them.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.simulation.plan import Request

_WEIGHTS = {"": 1.0, "ann": 1.0, "bob": 4.0, "cyd": 0.5}
_PRIORITIES = (-5, 0, 0, 7)
_SHARE = 0.4  # of the plans that have trees, owners or priorities, and of the requests in them
_CALM_SHARE = 0.3  # of the plans with trees: without faults it is known by when a child has to end
_PARENT_SECS = 4.0  # how long after a request one may begin that it has started
_LONG_PARENT_SECS = 1.0
_LONG_WORDS, _LONG_PAUSE_SECS = 50, 0.3  # of a child that outlives the end of its parent unless somebody ends it


def mixed(requests: Sequence[Request], seed: int) -> tuple[tuple[Request, ...], bool]:
    """Return the requests with parents, owners and priorities, and whether nothing is to break."""
    dice = random.Random(f"mixture {seed}")
    has_trees, has_owners, has_priorities = (dice.random() < _SHARE for _ in range(3))
    found: list[Request] = []
    for request in requests:
        if has_owners and not request.owner:
            request = request._replace(owner=dice.choice(tuple(_WEIGHTS)))
        if has_priorities:
            request = request._replace(priority=dice.choice(_PRIORITIES))
        if has_trees and dice.random() < _SHARE:
            is_first = not any(other.parent for other in found)
            request = _long_child(dice, request, requests) if is_first else _child(dice, request, requests)
        found.append(request._replace(weight=_WEIGHTS[request.owner] if has_owners else 1.0))
    return tuple(found), has_trees and dice.random() < _CALM_SHARE


def _child(dice: random.Random, request: Request, requests: Sequence[Request]) -> Request:
    """Return the request as one that another has started, if there is any from which it may come."""
    parents = [other for other in requests if other.at < request.at < other.at + _PARENT_SECS]
    return request._replace(parent=dice.choice(parents).rid) if parents else request


def _long_child(dice: random.Random, request: Request, requests: Sequence[Request]) -> Request:
    """Return the request as a long one that another has started soon after its own beginning, if one is long enough."""
    long = [other for other in requests if other.words * other.pause_secs > _LONG_PARENT_SECS and other is not request]
    if not long:
        return request
    parent = dice.choice(long)
    return request._replace(
        parent=parent.rid,
        at=parent.at + dice.uniform(0.1, 0.6),
        words=_LONG_WORDS,
        pause_secs=_LONG_PAUSE_SECS,
        on_disconnect="continue",
        leave_after=-1,
        queue_secs=0.0,
        first_token_secs=0.0,
        deadline_secs=0.0,
        visits=(),
    )
