"""The rules of the machine about requests that other requests have started."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from tests.machine.drawing import twice
from tests.machine.reference import ReferenceModel


class TreeRules:
    """Note children, and end or release them, in between whatever else happens."""

    reference: ReferenceModel
    both: Callable[..., Any]
    some_rid: Callable[[st.DataObject], str]

    @precondition(lambda self: self.reference.requests)
    @rule(
        data=st.data(), owner=st.sampled_from(("", "", "x")), is_known=st.sampled_from((True, True, False)), times=twice
    )
    def note_child(self, data: st.DataObject, owner: str, is_known: bool, times: int) -> None:
        """The request that is admitted next is to be the child of another, whatever becomes of that one meanwhile."""
        child = f"r{len(self.reference.requests)}"
        parent = self.some_rid(data) if is_known else "gone"
        self.both("note_child", parent, child, owner, times=times)

    note_child_too = note_child

    @precondition(lambda self: self.reference.noted)
    @rule(data=st.data(), times=twice)
    def forget_child(self, data: st.DataObject, times: int) -> None:
        child = data.draw(st.sampled_from(sorted(self.reference.noted)))
        self.both("forget_children", self.reference.noted[child][0], child, times=times)

    @rule(times=twice)
    def look_at_parents(self, times: int) -> None:
        """A sweep claims the children that are due and looks at their parents, twice as two replicas that race do."""
        rids = tuple(rid for rid, _ in self.both("claim_children"))
        states = self.both("check_parents", rids, times=times)
        for rid, state in zip(rids, states, strict=True):
            child = self.reference.requests[rid]
            assert state in ("live", "over") or child.terminal or child.cancel_mode, f"{rid} outlives its parent"
            assert state != "over" or child.next_look is None, f"{rid} is looked at for ever"
