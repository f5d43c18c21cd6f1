"""Engines that behave as badly as real ones can, named as a user names them: `tests.chaos.engines:gated`.

Their numbers are signed tokens (`signatures.py`); `numbers` is the text without the signatures.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from lifecycle.execution.context import EngineContext
from tests.chaos.signatures import signer
from tests.engines import prompt


async def gated(request: dict[str, Any], context: EngineContext) -> AsyncIterator[str]:
    """`<gate> <count> <seconds between>`: nothing before the file `gate` exists, then numbers at a pace.

    Beside the gate it keeps a journal, `<gate>.journal`: `start` and `stop` lines with request and attempt.
    """
    gate, count, pause = prompt(request).split()
    journal = Path(gate + ".journal")

    def note(word: str) -> None:
        with journal.open("a") as file:
            file.write(f"{word} {context.id} {context.attempt}\n")

    note("start")
    try:
        while not Path(gate).exists():
            await asyncio.sleep(0.01)
        sign = signer(context)
        for number in range(int(count)):
            yield sign(number)
            await asyncio.sleep(float(pause))
    finally:
        note("stop")


async def paced(request: dict[str, Any], context: EngineContext) -> AsyncIterator[str]:
    """`<count> <seconds between>`: numbers at a pace; ignores its context, so that only cancelling it helps."""
    count, pause = prompt(request).split()
    sign = signer(context)
    for number in range(int(count)):
        yield sign(number)
        await asyncio.sleep(float(pause))


async def blocking(request: dict[str, Any], context: EngineContext) -> AsyncIterator[str]:
    """`<count> <seconds>`: numbers; between the first and the second its process does nothing else for so long."""
    count, block = prompt(request).split()
    sign = signer(context)
    for number in range(int(count)):
        yield sign(number)
        await asyncio.sleep(0.05)
        if number == 0:
            time.sleep(float(block))


async def poisoned(request: dict[str, Any], context: EngineContext) -> AsyncIterator[str]:
    """`poison` takes the process down at once; anything else is `<count> <seconds between>`."""
    if prompt(request) == "poison":
        os._exit(1)
    async for token in paced(request, context):
        yield token


async def flood(request: dict[str, Any], context: EngineContext) -> AsyncIterator[str]:
    """Long tokens, as fast as they are taken, until it is stopped."""
    word = "x" * int(prompt(request))
    while not context.is_stopped:
        yield word
        await asyncio.sleep(0)


async def idle(request: dict[str, Any], context: EngineContext) -> AsyncIterator[str]:
    """One token, then nothing until it is ended, at no cost; its end goes into the file named by the prompt."""
    try:
        yield "begun"
        await context.killed()
    finally:
        with Path(prompt(request)).open("a") as file:
            file.write(context.id + "\n")


def numbers(count: int) -> str:
    """Return the text that most of these engines produce, without signatures."""
    return "".join(f"{number} " for number in range(count))


async def signed(request: dict[str, Any], context: EngineContext) -> AsyncIterator[str]:
    """`<count> <seconds between>`: numbers at a pace, until it is stopped, for `tests/chaos/audit`."""
    count, pause = prompt(request).split()
    sign = signer(context)
    for number in range(len(context.emitted), int(count)):
        if context.is_stopped:
            return
        yield sign(number)
        await asyncio.sleep(float(pause))


async def steadfast(request: dict[str, Any], context: EngineContext) -> AsyncIterator[str]:
    """Do the same as `signed`, but go on behind the tokens of earlier attempts."""
    async for token in signed(request, context):
        yield token


steadfast.resumable = True  # type: ignore[attr-defined]
