"""Engines for the tests, named as a user names them: `tests.engines:three_then_raise`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from lifecycle.execution.context import EngineContext

STREAM_ENDED = "Disconnected: Stream ended before generation completed"
SEND_ERROR = "Failed to send response: SendError { .. }"


def prompt(request: dict[str, Any]) -> str:
    if "messages" in request:
        return str(request["messages"][-1]["content"])
    return str(request["prompt"])


async def three_then_raise(request: dict[str, Any], context: EngineContext) -> AsyncIterator[str]:
    """Three tokens, then an error whose words are the prompt."""
    for text in ("one", " two", " three"):
        yield text
    raise RuntimeError(prompt(request))


async def traced(request: dict[str, Any], context: EngineContext) -> AsyncIterator[str]:
    """The traceparent it would hand on, then nothing until it is killed if the prompt says `wait`."""
    yield context.traceparent or "none"
    if prompt(request) == "wait":
        await context.killed()


async def reporting(request: dict[str, Any], context: EngineContext) -> AsyncIterator[str]:
    """Yield three tokens, and report usage with details."""
    context.usage = {
        "prompt_tokens": 20,
        "completion_tokens": 10,
        "prompt_tokens_details": {"cached_tokens": 16},
        "completion_tokens_details": {"reasoning_tokens": 7},
    }
    context.finish_reason = "length"
    for token in ("a ", "b ", "c"):
        yield token


async def introduced(request: dict[str, Any], context: EngineContext) -> AsyncIterator[str]:
    """Yield what it is told about the call, as JSON."""
    yield json.dumps({"headers": context.headers, "endpoint": context.endpoint, "owner": context.owner})


async def lingering(request: dict[str, Any], context: EngineContext) -> AsyncIterator[dict[str, Any]]:
    """Yield a whole answer in one chunk, then nothing until it is killed."""
    yield {"choices": [{"index": 0, "delta": {"reasoning": "hm"}, "finish_reason": "length"}]}
    await context.killed()


async def silent(request: dict[str, Any], context: EngineContext) -> AsyncIterator[str]:
    """Yield as many tokens as the prompt says, then nothing until the request is killed."""
    for number in range(int(prompt(request))):
        yield f"{number} "
    await context.killed()


async def paced(request: dict[str, Any], context: EngineContext) -> AsyncIterator[str]:
    """`<count> <seconds between>`: numbers at a pace; ignores its context, so that only cancelling it helps."""
    count, pause = prompt(request).split()
    for number in range(int(count)):
        yield f"{number} "
        await asyncio.sleep(float(pause))


async def in_two_parts(request: dict[str, Any], context: EngineContext) -> AsyncIterator[str]:
    """`<count> <gate>`: numbers, the second half of them once the file `gate` exists; a stop ends the wait."""
    count, gate = prompt(request).split()
    for number in range(int(count)):
        while number == int(count) // 2 and not Path(gate).exists():
            if context.is_stopped:
                return
            await asyncio.sleep(0.01)
        yield f"{number} "


async def resumed(request: dict[str, Any], context: EngineContext) -> AsyncIterator[str]:
    """Do the same as `paced`, but go on behind the tokens of earlier attempts."""
    count, pause = prompt(request).split()
    for number in range(len(context.emitted), int(count)):
        yield f"{number} "
        await asyncio.sleep(float(pause))


resumed.resumable = True  # type: ignore[attr-defined]


async def clinging(request: dict[str, Any], context: EngineContext) -> AsyncIterator[str]:
    """Do the same as `resumed`, but when a first attempt is cancelled it does not end until its process does."""
    try:
        async for token in resumed(request, context):
            yield token
    except asyncio.CancelledError:
        while context.attempt == 1:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                continue
        raise


clinging.resumable = True  # type: ignore[attr-defined]


async def stubborn(request: dict[str, Any], context: EngineContext) -> AsyncIterator[str]:
    """Cannot be ended until the file named by the prompt exists."""
    yield "started"
    while not Path(prompt(request)).exists():
        try:
            await asyncio.sleep(0.02)
        except asyncio.CancelledError:
            continue


async def marked(request: dict[str, Any], context: EngineContext) -> AsyncIterator[str]:
    """Writes `start` and `stop` lines with its id to the file named by the prompt; generates until it is ended."""
    journal = Path(prompt(request))

    def note(word: str) -> None:
        with journal.open("a") as file:
            file.write(f"{word} {context.id} {context.attempt}\n")

    note("start")
    try:
        number = 0
        while not context.is_stopped:
            yield f"{number} "
            number += 1
            await asyncio.sleep(0.01)
    finally:
        note("stop")


async def wrong_type(request: dict[str, Any], context: EngineContext) -> AsyncIterator[Any]:
    yield 42


async def bulky(request: dict[str, Any], context: EngineContext) -> AsyncIterator[str]:
    """`<count> <bytes> [gate]`: numbered tokens of so many bytes, as fast as they are taken, once `gate` exists."""
    count, size, *gate = prompt(request).split()
    while gate and not Path(gate[0]).exists():
        await asyncio.sleep(0.01)
    for number in range(int(count)):
        yield bulky_token(number, int(size))


def bulky_token(number: int, size: int) -> str:
    """Return one token of `bulky`."""
    return f"{number} ".ljust(size, "x")


async def shown(request: dict[str, Any], context: EngineContext) -> AsyncIterator[str]:
    """Yield the request that it gets, as JSON."""
    yield json.dumps(request)


async def waiting(request: dict[str, Any], context: EngineContext) -> AsyncIterator[str]:
    """Yield nothing until it is stopped or killed, or until the file that the prompt names exists."""
    file = Path(prompt(request))
    while not context.is_stopped and not file.exists():
        await asyncio.sleep(0.01)
    yield "done"
