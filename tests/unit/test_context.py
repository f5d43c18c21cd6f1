"""Stop and kill: what they set, whom they wake, whom they reach, and what they keep alive."""

import asyncio
import gc
import itertools
import weakref
from collections.abc import Callable

import pytest

from lifecycle.execution.context import EngineContext

BOUND_SECS = 5.0


def chain(length: int) -> list[EngineContext]:
    contexts = [EngineContext(f"r-{i}") for i in range(length)]
    for parent, child in itertools.pairwise(contexts):
        parent.link_child(child)
    return contexts


def state(context: EngineContext) -> tuple[bool, bool]:
    return context.is_stopped, context.is_killed


def test_starts_running_with_nothing_reported() -> None:
    context = EngineContext("r", 2)
    assert (context.id, context.attempt) == ("r", 2)
    assert state(context) == (False, False)
    assert (context.finish_reason, context.input_tokens, context.emitted) == (None, None, [])
    assert EngineContext("r").attempt == 1


@pytest.mark.parametrize("stop", [EngineContext.stop, EngineContext.stop_generating])
def test_a_stop_is_no_kill(stop: Callable[[EngineContext], None]) -> None:
    context = EngineContext("r")
    stop(context)
    stop(context)
    assert state(context) == (True, False)


def test_a_kill_is_a_stop_and_final() -> None:
    context = EngineContext("r")
    context.kill()
    context.stop()
    context.kill()
    assert state(context) == (True, True)


def test_a_stop_can_become_a_kill() -> None:
    context = EngineContext("r")
    context.stop()
    context.kill()
    assert state(context) == (True, True)


async def test_stopped_wakes_on_stop_and_killed_only_on_kill() -> None:
    context = EngineContext("r")
    stopped = asyncio.create_task(context.stopped())
    killed = asyncio.create_task(context.killed())
    await asyncio.sleep(0)
    context.stop()
    await asyncio.wait_for(stopped, BOUND_SECS)
    assert not killed.done()
    context.kill()
    await asyncio.wait_for(killed, BOUND_SECS)


async def test_stopped_returns_at_once_when_it_already_happened() -> None:
    context = EngineContext("r")
    context.kill()
    async with asyncio.timeout(BOUND_SECS):
        await context.stopped()
        await context.killed()


def test_reaches_children_of_children_but_never_the_parent() -> None:
    parent, child, grandchild = chain(3)
    child.stop()
    assert [state(c) for c in (parent, child, grandchild)] == [(False, False), (True, False), (True, False)]
    parent.kill()
    assert [state(c) for c in (parent, child, grandchild)] == [(True, True)] * 3


def test_a_child_linked_late_inherits_and_passes_on() -> None:
    parent, (child, grandchild) = EngineContext("p"), chain(2)
    parent.kill()
    parent.link_child(child)
    assert state(child) == state(grandchild) == (True, True)


def test_a_stopped_parent_does_not_weaken_a_killed_child() -> None:
    parent, child = EngineContext("p"), EngineContext("c")
    child.kill()
    parent.stop()
    parent.link_child(child)
    assert state(child) == (True, True)


def test_a_stop_reaches_past_a_child_that_was_stopped_before() -> None:
    parent, child, grandchild = chain(3)
    late = EngineContext("late")
    child.stop()
    child.link_child(late)
    parent.kill()
    assert state(late) == state(grandchild) == (True, True)


def test_cycles_end() -> None:
    first, second = chain(2)
    second.link_child(first)
    first.link_child(first)
    second.stop()
    assert first.is_stopped
    first.kill()
    assert second.is_killed


def test_a_chain_of_any_length_is_no_recursion() -> None:
    contexts = chain(10_000)
    contexts[0].kill()
    assert all(c.is_killed for c in contexts)


def test_a_parent_does_not_keep_its_children_alive() -> None:
    parent, child = chain(2)
    gone = weakref.ref(child)
    del child
    gc.collect()
    assert gone() is None
    parent.kill()


def test_the_end_of_a_chain_keeps_the_links_to_it() -> None:
    contexts = chain(4)
    parent, last = contexts[0], contexts[-1]
    contexts.clear()
    gc.collect()
    parent.stop()
    assert last.is_stopped


def test_a_listener_hears_stop_and_kill_once_each_until_it_is_removed() -> None:
    parent, child = chain(2)
    heard: list[tuple[bool, bool]] = []
    remove = child.add_listener(lambda: heard.append(state(child)))
    parent.stop()
    child.stop()
    parent.kill()
    child.kill()
    assert heard == [(True, False), (True, True)]

    other = EngineContext("o")
    remove_other = other.add_listener(lambda: heard.append(state(other)))
    remove_other()
    remove_other()
    remove()
    other.kill()
    assert len(heard) == 2
