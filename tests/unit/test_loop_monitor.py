"""Test what the log says about a blocked event loop."""

from __future__ import annotations

import asyncio
import sys

from lifecycle.replica.loop_monitor import stack_of


async def _innermost(secret: str) -> str:
    return stack_of(sys._getframe())


async def test_a_stack_has_places_and_no_values() -> None:
    shown = await asyncio.create_task(_innermost("the prompt"))
    [line] = shown.splitlines()  # without the event loop's own frames
    assert line.strip().startswith(__file__)
    assert line.endswith(" in _innermost")
    assert "prompt" not in shown


async def test_a_deep_stack_is_shown_from_its_end() -> None:
    def deep(left: int) -> str:
        return deep(left - 1) if left else stack_of(sys._getframe())

    lines = deep(50).splitlines()
    assert len(lines) == 20
    assert all("deep" in line for line in lines)


def test_a_thread_that_has_gone_has_no_stack() -> None:
    assert stack_of(None) == "  an unknown place"
