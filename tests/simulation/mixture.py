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
_PARENT_SECS = 4.0  # how long after a request one may begin that it has started
_LONG_WORDS, _LONG_PAUSE_SECS = 50, 0.3  # of a child that outlives the end of its parent unless somebody ends it


def mixed(requests: Sequence[Request], seed: int) -> tuple[Request, ...]:
    """Return the requests with parents, owners and priorities."""
    dice = random.Random(f"mixture {seed}")
    has_trees, has_owners, has_priorities = (dice.random() < _SHARE for _ in range(3))
    found: list[Request] = []
    for request in requests:
        if has_owners and not request.owner:
            request = request._replace(owner=dice.choice(tuple(_WEIGHTS)))
        if has_priorities:
            request = request._replace(priority=dice.choice(_PRIORITIES))
        if has_trees and dice.random() < _SHARE:
            is_long = not any(other.parent and other.words == _LONG_WORDS for other in found)
            request = _child(dice, request, requests, may_be_long=is_long)
        found.append(request._replace(weight=_WEIGHTS[request.owner] if has_owners else 1.0))
    return tuple(found)


def _child(dice: random.Random, request: Request, requests: Sequence[Request], *, may_be_long: bool) -> Request:
    """Return the request as one that another has started, if there is any from which it may come."""
    parents = [other for other in requests if other.at < request.at < other.at + _PARENT_SECS]
    if not parents:
        return request
    request = request._replace(parent=dice.choice(parents).rid)
    if may_be_long and not request.deadline_secs:
        request = request._replace(words=_LONG_WORDS, pause_secs=_LONG_PAUSE_SECS, on_disconnect="continue")
    return request
