"""Starts that Redis has lost, and whose numbers other starts have: what may be said of them, and what then holds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from tests.machine.drawing import twice
from tests.machine.words import Run, Tracked


class LostStarts:
    """The part of the reference model that is about reports of lost starts."""

    requests: dict[str, Tracked]
    _end_from_outside: Callable[..., None]

    def report_lost_start(self, rid: str, attempt: int, is_lost: bool) -> tuple[object, ...]:
        request = self.requests[rid]
        if not is_lost or (attempt < request.attempt and not request.has_stream):
            return ("known",)
        if request.terminal:
            return ("already", request.status)
        if request.kill_pending:
            return ("killing", "running")
        self._end_from_outside(request, "failed", "state_lost")
        return ("done", "failed")


class LostStartRules:
    """The rules of the machine about them."""

    runs: list[Run]
    some_run: Callable[[st.DataObject], Run]
    both: Callable[..., Any]

    @precondition(lambda self: self.runs)
    @rule(data=st.data(), is_lost=st.sampled_from((False, False, True)), times=twice)
    def report_lost_start(self, data: st.DataObject, is_lost: bool, times: int) -> None:
        run = self.some_run(data)
        self.both("report_lost_start", run.rid, run.attempt, is_lost, times=times)

    @precondition(lambda self: self.runs)
    @rule(data=st.data(), times=twice)
    def append_of_a_lost_start(self, data: st.DataObject, times: int) -> None:
        run = self.some_run(data)
        piece = run.piece(1)._replace(is_lost=True)
        self.both("append", run.worker, [piece], times=times)
