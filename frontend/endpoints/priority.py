"""Take the priority out of a call's body: it orders the queue, and is not for the engine."""

from __future__ import annotations

from frontend.endpoints.body_rules import Rule, is_a
from frontend.endpoints.endpoint import Call

PRIORITY = Rule("an integer", is_a(int))


def with_priority(call: Call) -> Call:
    """Return the call with its priority beside its body. Raises ApiError, 400, when that is no integer."""
    if "priority" not in call.body:
        return call
    body = dict(call.body)
    priority = body.pop("priority")
    if priority is not None:
        PRIORITY.check("priority", priority)
    return call._replace(body=body, priority=priority or 0)
