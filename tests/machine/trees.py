"""Requests that other requests have started: who may, what ends with whom, and what then holds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

from tests.machine.drawing import CHECK_SECS
from tests.machine.members import Members
from tests.machine.words import Tracked

_LOST = ("worker_lost", "frontend_lost", "state_lost")


class Trees:
    """The part of the reference model that is about parents and children."""

    requests: dict[str, Tracked]
    members: Members
    noted: dict[str, tuple[str, bool, int]]  # child → its parent, whether it is to end with it, its level
    children: defaultdict[str, set[str]]  # parent → those in its list
    _due: Callable[[int], tuple[int, int]]
    _is_due: Callable[..., bool]
    _cancel: Callable[..., str]

    def note_child(self, parent: str, child: str, owner: str) -> tuple[object, ...]:
        self.noted.pop(child, None)
        request = self.requests.get(parent)
        if request is None or (owner and request.owner != owner):
            return ("unknown",)
        if request.status in ("failed", "cancelled") or request.cancel_mode:
            return ("ended",)
        is_over = request.status == "completed"
        self.noted[child] = (parent, not is_over, request.level + 1)
        self.children[parent].add(child)
        return ("noted", is_over, request.level + 1)

    def forget_children(self, parent: str, child: str) -> tuple[object, ...]:
        self.children[parent].discard(child)
        return ()

    def note_parent(self, request: Tracked) -> None:
        """Connect a request that is being admitted to the parent that was noted for it."""
        if request.rid in self.noted:
            request.parent, ends_with_parent, request.level = self.noted[request.rid]
            request.next_look = self._due(0) if ends_with_parent else None

    def claim_children(self) -> tuple[object, ...]:
        due = [request for request in self.requests.values() if self._is_due(request.next_look)]
        for request in due:
            request.next_look = self._due(CHECK_SECS)
        return tuple(sorted((request.rid, request.parent) for request in due))

    def check_parents(self, rids: tuple[str, ...]) -> tuple[object, ...]:
        """End or release children that were claimed, however long ago."""
        children = [self.requests[rid] for rid in rids]
        states = [self.state_of(self.requests[child.parent]) for child in children]
        for child, state in zip(children, states, strict=True):
            if state == "over":
                child.next_look = None
            elif state != "live":
                self._cancel(child, "stop" if state == "stop" else "kill", f"parent:{child.parent}")
        return tuple(states)

    @staticmethod
    def state_of(parent: Tracked) -> str:
        if parent.status == "failed":
            return "lost" if parent.error_type in _LOST else "failed"
        if parent.status == "cancelled" or parent.cancel_mode == "kill":
            return "cancelled"
        if parent.cancel_mode == "stop":
            return "stop"
        return "over" if parent.status == "completed" else "live"
