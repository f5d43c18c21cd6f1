"""The echo engine: what it says, when it ends, and how it keeps its pace."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifecycle.errors import EngineError
from lifecycle.execution.context import EngineContext
from tests.generation import tokens
from worker.engines.echo import EchoEngine

BOUND_SECS = 5.0


def chat(content: Any, **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "system", "content": "be brief"}, {"role": "user", "content": content}], **more}


@given(st.text() | st.text(alphabet=" \t\n a"))
async def test_echo_reproduces_the_prompt(prompt: str) -> None:
    said = await tokens(EchoEngine(0), {"prompt": prompt})
    assert "".join(map(str, said)) == prompt
    assert len(said) == (len(prompt.split()) or bool(prompt))


async def test_echo_puts_the_space_in_front_of_the_word() -> None:
    assert await tokens(EchoEngine(0), chat("one  two\nthree ")) == ["one", "  two", "\nthree "]


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        (chat([{"type": "text", "text": "a b"}, {"type": "image_url"}, {"type": "text", "text": " c"}]), "a b c"),
        ({"messages": [{"role": "user", "content": "old"}, {"role": "user", "content": "new"}]}, "new"),
        ({"messages": [{"role": "user", "content": "mine"}, {"role": "assistant", "content": "its"}]}, "mine"),
        ({"messages": [{"role": "system", "content": "alone"}]}, ""),
        (chat(None), ""),
        ({"prompt": ["first", "second"]}, "first second"),
        ({"prompt": [1, 2]}, "1 2"),
        ({}, ""),
    ],
)
async def test_echo_finds_the_prompt(request_: dict[str, Any], said: str) -> None:
    assert "".join(map(str, await tokens(EchoEngine(0), request_))) == said


@pytest.mark.parametrize(
    ("limits", "count", "reason"),
    [
        ({"max_tokens": 2}, 2, "length"),
        ({"max_completion_tokens": 1, "max_tokens": 3}, 1, "length"),
        ({"max_completion_tokens": None, "max_tokens": 2}, 2, "length"),
        ({"max_tokens": 0}, 0, "length"),
        ({"max_tokens": 3}, 3, None),
        ({"max_tokens": 30}, 3, None),
        ({}, 3, None),
    ],
)
async def test_echo_ends_at_the_limit(limits: dict[str, Any], count: int, reason: str | None) -> None:
    context = EngineContext("r")
    assert len(await tokens(EchoEngine(0), chat("a b c", **limits), context)) == count
    assert context.finish_reason == reason
    assert context.input_tokens == 3


@given(
    prompt=st.text(alphabet="ab ", max_size=6),
    stop=st.text(alphabet="ab ", max_size=15) | st.lists(st.text(alphabet="ab ", max_size=15), max_size=3) | st.none(),
    repeat=st.integers(1, 6),
)
async def test_echo_repeats_and_ends_before_a_stop_sequence(prompt: str, stop: Any, repeat: int) -> None:
    said = await tokens(EchoEngine(0), {"prompt": prompt, "stop": stop, "echo_repeat": repeat})
    full = " ".join([prompt] * repeat)
    found = [full.find(s) for s in ([stop] if isinstance(stop, str) else stop or []) if s and s in full]
    expected = full[: min(found, default=len(full))]
    if prompt.strip():
        assert "".join(map(str, said)) == expected
    else:  # nothing but white space has no word to repeat
        assert not "".join(map(str, said)).strip()


@pytest.mark.parametrize("repeat", [0, -1, "2", 1.5, True, None])
async def test_echo_refuses_a_senseless_repeat(repeat: Any) -> None:
    with pytest.raises(EngineError, match="echo_repeat"):
        await tokens(EchoEngine(0), {"prompt": "a", "echo_repeat": repeat})


@pytest.mark.parametrize("stop", [[1.0], ["a", None], 7, {"a": 1}])
async def test_echo_refuses_stop_sequences_that_are_no_texts(stop: Any) -> None:
    with pytest.raises(EngineError, match="stop is") as raised:
        await tokens(EchoEngine(0), {"prompt": "a", "stop": stop})
    assert (raised.value.detail.status, raised.value.detail.param) == (400, "stop")


async def test_echo_keeps_its_pace() -> None:
    began = time.monotonic()
    await tokens(EchoEngine(1000), {"prompt": "w", "echo_repeat": 51})
    assert time.monotonic() - began >= 50 / 1000


async def test_echo_does_not_drift() -> None:
    # Each sleep lasts a millisecond or more: one for each of these tokens would take three times the bound.
    await tokens(EchoEngine(1e6), {"prompt": "w", "echo_repeat": 15_000})


async def test_echo_leaves_the_loop_its_turns() -> None:
    turns = 0
    loop = asyncio.get_running_loop()

    def turn() -> None:
        nonlocal turns
        turns += 1
        handle.append(loop.call_soon(turn))

    handle = [loop.call_soon(turn)]
    await tokens(EchoEngine(0), {"prompt": "w", "echo_repeat": 3200})
    handle[-1].cancel()
    assert turns >= 100


@pytest.mark.parametrize("end", [EngineContext.stop, EngineContext.kill])
async def test_echo_stops_while_it_waits(end: Any) -> None:
    context = EngineContext("r")
    answer = EchoEngine(1 / 3600)(chat("now in-an-hour"), context)
    async with asyncio.timeout(BOUND_SECS):
        assert await anext(answer) == "now"
        asyncio.get_running_loop().call_soon(end, context)
        assert [token async for token in answer] == []


async def test_echo_says_nothing_once_it_is_stopped() -> None:
    context = EngineContext("r")
    context.stop()
    assert await tokens(EchoEngine(1 / 3600), chat("a b"), context) == []


async def test_echo_can_be_cancelled_while_it_waits() -> None:
    context = EngineContext("r")
    answer = EchoEngine(1 / 3600)(chat("now in-an-hour"), context)
    await asyncio.wait_for(anext(answer), BOUND_SECS)
    waiting = asyncio.ensure_future(anext(answer))
    asyncio.get_running_loop().call_soon(waiting.cancel)
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(waiting, BOUND_SECS)
    context.kill()  # reaches nothing that is gone
