"""The clients of a simulated cluster. Each call is recorded in a history, which tests/chaos/audit checks."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from typing import Any

from lifecycle.ids import START, TokenId
from tests.chaos.audit.asked import Asked
from tests.chaos.audit.history import Call, History, How, Operation
from tests.simulation import edge
from tests.simulation.answer import Answer
from tests.simulation.loop import VirtualLoop
from tests.simulation.plan import Plan, Request, Visit
from tests.simulation.process import State
from tests.simulation.replicas import Frontend
from tests.simulation.story import Story

_ANSWER_SECS = 90.0  # longer than all faults together
_WATCH_SECS = 0.7


class Load:
    """`run()` makes all calls of a plan; afterwards `look_at_the_end()` reads every request once more."""

    def __init__(
        self, plan: Plan, loop: VirtualLoop, frontends: Sequence[Frontend], history: History, story: Story
    ) -> None:
        self._plan = plan
        self._loop = loop
        self._frontends = frontends
        self._history = history
        self._story = story
        self._dice = random.Random(f"load {plan.seed}")
        self._began_at = loop.time()
        self._last: dict[str, TokenId] = {}  # what the client of a request has read last
        self.over = False

    def now(self) -> float:
        return self._loop.time() - self._began_at

    async def run(self) -> None:
        watching = asyncio.create_task(self._watch(), name="watcher")
        async with asyncio.TaskGroup() as group:
            for request in self._plan.requests:
                group.create_task(self._client(request), name=f"client of {request.rid}")
        self.over = True
        await watching

    async def look_at_the_end(self, give_up_at: float) -> list[str]:
        """Wait for the end of every request, read it and count once more. Return requests that have not ended."""
        unended: list[str] = []
        for request in self._plan.requests:
            while True:
                call = await self._call(self._any(), Operation.STATUS, edge.status(request.rid), rid=request.rid)
                if call is not None and (call.code == 404 or (call.record is not None and call.record.terminal)):
                    break
                if self.now() > give_up_at:
                    unended.append(request.rid)
                    break
                await asyncio.sleep(0.5)
            if call is not None and call.code == 200 and request.rid not in unended:
                await self._read(request.rid, self._any(), START, 0)
        await self._call(self._any(), Operation.INFLIGHT, edge.inflight)
        return unended

    # Clients

    async def _client(self, request: Request) -> None:
        await asyncio.sleep(request.at)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._admit(request, request.frontend, request.leave_after))
            for visit in request.visits:
                group.create_task(self._visit(request, visit))

    async def _admit(self, request: Request, frontend: int, leave_after: int) -> None:
        call = await self._call(
            frontend,
            Operation.ADMIT,
            edge.admit(request),
            leave_after,
            rid=request.rid,
            asked=Asked(request.model, "signed", "", request.words, self._may_be_stopped(request)),
            stream=request.stream,
        )
        if call is not None and call.tokens:
            self._last[request.rid] = TokenId(*call.tokens[-1].position)

    def _may_be_stopped(self, request: Request) -> bool:
        """Return whether the client of a request that has started this one, at any distance, stops it."""
        by_id = {other.rid: other for other in self._plan.requests}
        seen: set[str] = set()
        while (parent := by_id.get(request.parent)) is not None and parent.rid not in seen:
            if any(visit.what == "stop" for visit in parent.visits):
                return True
            seen.add(parent.rid)
            request = parent
        return False

    async def _visit(self, request: Request, visit: Visit) -> None:
        await asyncio.sleep(visit.at)
        rid = request.rid
        match visit.what:
            case "read":
                await self._read(rid, visit.frontend, START, visit.tokens)
            case "read on":
                await self._read(rid, visit.frontend, self._last.get(rid, START), visit.tokens)
            case "kill" | "stop":
                handler = edge.cancel(rid, visit.what, visit.wait_secs)
                await self._call(visit.frontend, Operation.CANCEL, handler, rid=rid, mode=visit.what)
            case "status":
                await self._call(visit.frontend, Operation.STATUS, edge.status(rid), rid=rid)
            case "repeat":
                await self._admit(request, visit.frontend, visit.tokens or -1)

    async def _read(self, rid: str, frontend: int, after: TokenId, tokens: int) -> None:
        call = await self._call(
            frontend,
            Operation.RESUME,
            edge.resume(rid, after),
            tokens or -1,
            rid=rid,
            after=tuple(after),
            stream=True,
        )
        if call is not None and call.tokens:
            self._last[rid] = max(self._last.get(rid, START), TokenId(*call.tokens[-1].position))

    async def _watch(self) -> None:
        """Read the count, and the record of some request, again and again."""
        rids = [request.rid for request in self._plan.requests if request.at < self.now() + 1.0]
        while not self.over:
            await asyncio.sleep(_WATCH_SECS * (0.5 + self._dice.random()))
            await self._call(self._any(), Operation.INFLIGHT, edge.inflight)
            rids = [request.rid for request in self._plan.requests if request.at < self.now()]
            if rids:
                rid = self._dice.choice(rids)
                await self._call(self._any(), Operation.STATUS, edge.status(rid), rid=rid)

    def _any(self) -> int:
        return self._dice.randrange(len(self._frontends))

    # One call

    async def _call(
        self, number: int, operation: Operation, handler: edge.Handler, leave_after: int = -1, **fields: Any
    ) -> Call | None:
        """Make a call at this frontend, or at the next one that accepts calls, and record it.

        Return None when no frontend does. With `leave_after` the client leaves after so many tokens.
        """
        accepting = [place for place in [*self._frontends[number:], *self._frontends[:number]] if place.accepts]
        if not accepting:
            return None
        place = accepting[0]
        process, tracker = place.process, place.tracker
        assert process is not None
        assert tracker is not None
        answer, invoked_at = Answer(self.now), self.now()
        what = f"{operation} {fields.get('rid', '')} {fields.get('mode', '')}".strip()
        if operation is not Operation.INFLIGHT:
            self._story.note("client", f"{what} at {place.name}")

        def on_crash() -> None:
            answer.end(How.BROKEN)

        process.on_crash.append(on_crash)
        process.spawn(edge.serve(handler, tracker, answer), what)
        try:
            async with asyncio.timeout(_ANSWER_SECS):
                await answer.wait(lambda: 0 <= leave_after <= len(answer.tokens) and leave_after >= 0)
        except TimeoutError:
            answer.how = How.SILENT
        if on_crash in process.on_crash:
            process.on_crash.remove(on_crash)
        if not answer.over:
            if answer.how is not How.SILENT:
                answer.how = How.LEFT
            if process.state is not State.DEAD:
                self._loop.call_soon(answer.leave, context=process.context)
        return self._record(answer, operation, place.name, invoked_at, what, fields)

    def _record(
        self, answer: Answer, operation: Operation, replica: str, invoked_at: float, what: str, fields: dict[str, Any]
    ) -> Call:
        call = Call(
            operation=operation,
            invoked_at=invoked_at,
            completed_at=self.now(),
            replica=replica,
            code=answer.code,
            answered_at=answer.answered_at,
            how=answer.how,
            tokens=tuple(answer.tokens),
            text=answer.text,
            done=answer.done,
            error=answer.error,
            retry_after=answer.code == 503,
            record=answer.record,
            total=answer.total,
            attached=answer.attached,
            **fields,
        )
        self._history.calls.append(call)
        if operation is not Operation.INFLIGHT:
            self._story.note("client", f"{what}: {_shown(call)}")
        return call


def _shown(call: Call) -> str:
    parts = [str(call.code), *([] if call.how is How.WHOLE else [str(call.how)])]
    if call.tokens:
        parts.append(
            f"{call.tokens[0].attempt}-{call.tokens[0].number} to {call.tokens[-1].attempt}-{call.tokens[-1].number}"
        )
    if call.record is not None:
        parts.append(f"{call.record.status} attempt {call.record.attempt} {call.record.error_type}".strip())
    if call.done:
        parts.append("done")
    if call.error:
        parts.append(call.error)
    return " ".join(parts)
