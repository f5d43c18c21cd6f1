"""Engines for the load. A token's text is `<number>@<clock>`: its number from 1, and CLOCK_MONOTONIC in nanoseconds at
the moment the engine yields it. The clock is common to all processes of a machine, so a client that reads the text
knows how long the token was under way.

The prompt says what to do: `unpaced <tokens>`, `paced <tokens> <tokens per second>`, `open`, `journal <path>`.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from lifecycle.context import EngineContext

_TOKENS_PER_TURN = 16  # an unpaced stream lets the others, and the sockets, have a turn after so many


def text_of(number: int) -> str:
    return f"{number}@{time.monotonic_ns()}"


def stamped(request: dict[str, Any], context: EngineContext) -> AsyncIterator[str]:
    """What the prompt asks for."""
    kind, *words = str(request["messages"][-1]["content"]).split()
    if kind == "unpaced":
        return _unpaced(int(words[0]))
    if kind == "paced":
        return _paced(int(words[0]), float(words[1]))
    if kind == "journal":
        return _journal(Path(words[0]), context)
    if kind == "open":
        return _open()
    raise ValueError(f"no such load: {kind!r}")


async def _unpaced(count: int) -> AsyncIterator[str]:
    """As fast as it goes."""
    for number in range(1, count + 1):
        yield text_of(number)
        if number % _TOKENS_PER_TURN == 0:
            await asyncio.sleep(0)


async def _paced(count: int, tokens_per_sec: float) -> AsyncIterator[str]:
    """By an absolute schedule, so that lateness does not add up; its start is random, so that streams do not march."""
    clock = asyncio.get_running_loop().time
    begins_at = clock() + random.random() / tokens_per_sec
    for number in range(1, count + 1):
        await asyncio.sleep(max(0.0, begins_at + (number - 1) / tokens_per_sec - clock()))
        yield text_of(number)


async def _open() -> AsyncIterator[str]:
    """One token, then silence until it is ended."""
    yield text_of(1)
    await asyncio.Event().wait()


async def _journal(path: Path, context: EngineContext) -> AsyncIterator[str]:
    """One token, then silence; `<id> <clock>` goes to the file at the moment it is ended."""
    try:
        yield text_of(1)
        await asyncio.Event().wait()
    finally:
        told_ns = time.monotonic_ns()
        with path.open("a") as file:
            file.write(f"{context.id} {told_ns}\n")
