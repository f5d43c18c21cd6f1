"""Engines for the load. A token's text is `<number>@<clock>`: its number from 1, and CLOCK_MONOTONIC in nanoseconds at
the moment the engine yields it. The clock is common to all processes of a machine, so a client that reads the text
knows how long the token was under way.

The prompt says what to do: `unpaced <tokens>`, `tools <tokens>` (the texts are arguments of a tool call),
`paced <tokens> <tokens per second>`, `steps <tokens>`,
`journal <path> <tokens per second>`, where 0 is one token and then silence.
"""

from __future__ import annotations

import asyncio
import base64
import random
import struct
import time
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any, Protocol

STEP_SECS = 0.02
_TOKENS_PER_TURN = 16  # an unpaced stream lets the others, and the sockets, have a turn after so many
_FOREVER = 1 << 40
_VECTOR = tuple(random.Random(0).uniform(-1, 1) for _ in range(1024))
_PACKED = base64.b64encode(struct.pack(f"<{len(_VECTOR)}f", *_VECTOR)).decode()


class Context(Protocol):
    @property
    def id(self) -> str: ...


def text_of(number: int) -> str:
    return f"{number}@{time.monotonic_ns()}"


class _Stamped:
    """Run the engine that the prompt names, for instance `paced 200 20`; embed what comes without a prompt."""

    endpoints = ("chat_completions", "completions", "embeddings")

    def __call__(self, request: dict[str, Any], context: Context) -> AsyncGenerator[str | dict[str, Any]]:
        return _embedding(request) if "input" in request else _generation(request, context)


stamped = _Stamped()


async def _embedding(request: dict[str, Any]) -> AsyncGenerator[dict[str, Any]]:
    """Yield an embedding, in the form that the request asks for."""
    vector = _PACKED if request["encoding_format"] == "base64" else [*_VECTOR]
    yield {
        "id": text_of(1),
        "object": "list",
        "model": request["model"],
        "data": [{"object": "embedding", "index": 0, "embedding": vector}],
        "usage": {"prompt_tokens": 1, "total_tokens": 1},
    }


def _generation(request: dict[str, Any], context: Context) -> AsyncGenerator[str | dict[str, Any]]:
    kind, *words = str(request["messages"][-1]["content"]).split()
    if kind == "unpaced":
        return _unpaced(int(words[0]))
    if kind == "tools":
        return _tools(int(words[0]))
    if kind == "paced":
        return _paced(int(words[0]), float(words[1]))
    if kind == "steps":
        return _stepped(int(words[0]))
    if kind == "journal":
        return _journal(Path(words[0]), float(words[1]), context)
    raise ValueError(f"no such load: {kind!r}")


async def _unpaced(count: int) -> AsyncGenerator[str]:
    """Yield tokens without a pause."""
    for number in range(1, count + 1):
        yield text_of(number)
        if number % _TOKENS_PER_TURN == 0:
            await asyncio.sleep(0)


async def _tools(count: int) -> AsyncGenerator[dict[str, Any]]:
    """Yield deltas of a tool call without a pause, each one a new object as a parser of an upstream makes it."""
    for number in range(1, count + 1):
        arguments = {"index": 0, "function": {"arguments": text_of(number)}}
        yield {"choices": [{"index": 0, "delta": {"tool_calls": [arguments]}}]}
        if number % _TOKENS_PER_TURN == 0:
            await asyncio.sleep(0)


async def _paced(count: int, tokens_per_sec: float) -> AsyncGenerator[str]:
    """Yield tokens by an absolute schedule, so that delays do not add up; its start is random for each stream."""
    if not tokens_per_sec:
        yield text_of(1)
        await asyncio.Event().wait()
    loop = asyncio.get_running_loop()
    alarm, begins_at = _alarm_of(loop), loop.time() + random.random() / tokens_per_sec
    for number in range(1, count + 1):
        await alarm.at(begins_at + (number - 1) / tokens_per_sec)
        yield text_of(number)


class _Alarm:
    """Wakes each stream when it is due, by one timer for all of the same millisecond, which is all that uvloop's timers
    tell apart: a system's cost is not to be drowned in its engine's.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._due: dict[int, list[asyncio.Future[None]]] = {}  # by the millisecond

    def at(self, when: float) -> asyncio.Future[None]:
        """Return a future that is done at `when`, by the loop's clock."""
        due: asyncio.Future[None] = self.loop.create_future()
        at_ms = round(when * 1000)
        together = self._due.get(at_ms)
        if together is None:
            together = self._due[at_ms] = []
            self.loop.call_at(at_ms / 1000, self._ring, at_ms)
        together.append(due)
        return due

    def _ring(self, at_ms: int) -> None:
        for due in self._due.pop(at_ms):
            if not due.done():
                due.set_result(None)


_alarm: _Alarm | None = None


def _alarm_of(loop: asyncio.AbstractEventLoop) -> _Alarm:
    global _alarm
    if _alarm is None or _alarm.loop is not loop:
        _alarm = _Alarm(loop)
    return _alarm


class _Stepper:
    """One loop for all requests of the process, as real engines have: each step yields a token to each of them."""

    def __init__(self) -> None:
        self._requests: set[asyncio.Queue[int]] = set()
        self._loop: asyncio.Task[None] | None = None

    def join(self) -> asyncio.Queue[int]:
        request: asyncio.Queue[int] = asyncio.Queue()
        self._requests.add(request)
        if self._loop is None:
            self._loop = asyncio.create_task(self._step())
        return request

    def leave(self, request: asyncio.Queue[int]) -> None:
        self._requests.discard(request)
        if not self._requests and self._loop is not None:
            self._loop.cancel()
            self._loop = None

    async def _step(self) -> None:
        clock = asyncio.get_running_loop().time
        due_at = clock()
        while True:
            due_at = max(due_at + STEP_SECS, clock())  # a step that comes late delays those behind it
            await asyncio.sleep(due_at - clock())
            for request in self._requests:
                request.put_nowait(time.monotonic_ns())


_stepper = _Stepper()


async def _stepped(count: int) -> AsyncGenerator[str]:
    request = _stepper.join()
    try:
        for number in range(1, count + 1):
            yield f"{number}@{await request.get()}"
    finally:
        _stepper.leave(request)


async def _journal(path: Path, tokens_per_sec: float, context: Context) -> AsyncGenerator[str]:
    """Tokens without end; `<id> <clock>` goes to the file at the moment it is ended."""
    try:
        async for text in _paced(_FOREVER, tokens_per_sec):
            yield text
    finally:
        told_ns = time.monotonic_ns()
        with path.open("a") as file:
            file.write(f"{context.id} {told_ns}\n")
