"""An engine in an application's own process: declared by a decorator, run by `lifecycle.Worker`."""

from __future__ import annotations

import asyncio
import json
import re
import signal
from collections.abc import AsyncIterator
from typing import Any

import pytest

import lifecycle
from lifecycle.settings import Settings
from tests.library import connect, given, start_python
from tests.waiting import wait_until


@lifecycle.engine
async def shout(request: dict[str, Any], context: lifecycle.EngineContext) -> AsyncIterator[str]:
    for word in request["messages"][-1]["content"].split():
        yield word.upper()


async def has_ended(tracker: lifecycle.Tracker, rid: str) -> bool:
    return (await tracker.get(rid)).status.terminal


async def is_refused(tracker: lifecycle.Tracker) -> bool:
    try:
        await (await tracker.submit(CALL)).aclose()
    except lifecycle.Unavailable as refused:
        return "mine" in refused.message
    return False


CALL = {"model": "mine", "messages": [{"role": "user", "content": "one two"}]}


async def serves(tracker: lifecycle.Tracker, state: str = "ready", count: int = 1) -> bool:
    return count <= sum("mine" in replica.models and replica.state == state for replica in await tracker.replicas())


async def test_a_worker_serves_and_drains_from_code(settings: Settings) -> None:
    worker = lifecycle.Worker(shout, model="mine", concurrency=8, **given(settings))
    async with connect(settings) as tracker:
        with pytest.raises(lifecycle.NotFound, match="mine"):
            await tracker.submit(CALL)
        running = asyncio.create_task(worker.run())
        await wait_until(lambda: serves(tracker))
        async with await tracker.submit(CALL, owner="acme", labels={"team": "a"}) as run:
            assert [event async for event in run] == ["ONE", "TWO"]
        record = await tracker.get(run.id)
        assert (record.status, record.owner, record.labels) == ("completed", "acme", {"team": "a"})
        assert record.endpoint == "chat_completions"
        worker.drain()
        await asyncio.wait_for(running, 10)
        await wait_until(lambda: is_refused(tracker))


async def test_cancelling_a_worker_ends_it_at_once(settings: Settings) -> None:
    closed = asyncio.Event()

    @lifecycle.engine(concurrency=1)
    async def wait(request: dict[str, Any], context: lifecycle.EngineContext) -> AsyncIterator[str]:
        yield "begun"
        try:
            await asyncio.sleep(60)
        finally:
            closed.set()

    running = asyncio.create_task(lifecycle.Worker(wait, model="mine", **given(settings)).run())
    async with connect(settings) as tracker:
        await wait_until(lambda: serves(tracker))
        async with await tracker.submit(CALL) as run:
            assert await anext(aiter(run)) == "begun"
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running
            assert closed.is_set()
        await wait_until(lambda: has_ended(tracker, run.id))  # the cancel is confirmed when the worker's lease ends


def test_a_wrong_engine_is_named_when_it_is_declared() -> None:
    async def no_generator(request: dict[str, Any], context: lifecycle.EngineContext) -> str:
        return ""

    with pytest.raises(lifecycle.InvalidSetting, match=r"no_generator.*never yields"):
        lifecycle.engine(no_generator)
    with pytest.raises(lifecycle.InvalidSetting, match="concurrency"):
        lifecycle.engine(concurrency=0)(shout)
    shout.concurrency = None  # type: ignore[attr-defined]
    with pytest.raises(lifecycle.InvalidSetting, match="'acepts'"):
        lifecycle.engine(acepts=["tools"])  # type: ignore[call-overload]
    with pytest.raises(lifecycle.InvalidSetting, match="never yields"):
        lifecycle.Worker(no_generator, model="mine")


@pytest.mark.parametrize("model", ["", " ", (), ("m", "")])
def test_a_worker_needs_the_name_of_a_model(model: Any) -> None:
    with pytest.raises(lifecycle.InvalidSetting, match="model"):
        lifecycle.Worker(shout, model=model)


PROCESS = """
import asyncio, json, sys
import lifecycle

@lifecycle.engine
async def generate(request, context):
    yield "first"
    await context.stopped() if request.get("slow") else None
    yield "last"

async def main():
    print("running", flush=True)
    await lifecycle.Worker(generate, model="mine", **json.loads(sys.argv[1])).run()
    print("drained", flush=True)

asyncio.run(main())
"""


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_drains_a_worker_of_ones_own(settings: Settings, sent: signal.Signals) -> None:
    process = await start_python(PROCESS, json.dumps(given(settings)))
    assert process.stdout is not None
    try:
        async with connect(settings) as tracker:
            await wait_until(lambda: serves(tracker), timeout=20)
            process.send_signal(sent)
            assert await asyncio.wait_for(process.stdout.read(), 20) == b"running\ndrained\n"
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_a_submitted_request_has_a_priority_that_the_engine_does_not_see(settings: Settings) -> None:
    @lifecycle.engine
    async def tell(request: dict[str, Any], context: lifecycle.EngineContext) -> AsyncIterator[str]:
        yield json.dumps(sorted(request))

    running = asyncio.create_task(lifecycle.Worker(tell, model="mine", **given(settings)).run())
    async with connect(settings) as tracker:
        await wait_until(lambda: serves(tracker))
        async with await tracker.submit({**CALL, "priority": -7}) as run:
            assert [event async for event in run] == ['["messages", "model"]']
        assert (await tracker.get(run.id)).priority == -7
        with pytest.raises(lifecycle.InvalidValue, match="priority is 'high'") as refused:
            await tracker.submit({**CALL, "priority": "high"})
        assert refused.value.param == "priority"
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


@pytest.mark.parametrize(
    ("endpoint", "body", "named"),
    [
        ("chat_completions", {"n": 2}, "n"),
        ("chat_completions", {"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools"),
        ("completions", {"prompt": ["a", "b"]}, "prompt"),
        ("responses", {"input": "x", "tools": [{"type": "web_search"}]}, "tools[0].type"),
        ("messages", {"mcp_servers": [{}]}, "mcp_servers"),
    ],
)
async def test_what_no_worker_takes_is_refused_and_named(
    settings: Settings, endpoint: str, body: dict[str, Any], named: str
) -> None:
    @lifecycle.engine
    async def plain(request: dict[str, Any], context: lifecycle.EngineContext) -> AsyncIterator[str]:
        yield "text"

    running = asyncio.create_task(lifecycle.Worker(plain, model="mine", **given(settings)).run())
    async with connect(settings) as tracker:
        await wait_until(lambda: serves(tracker))
        with pytest.raises(lifecycle.InvalidValue, match=re.escape(repr(named))) as refused:
            await tracker.submit({**CALL, **body}, endpoint)
        assert refused.value.param == named
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_a_submitted_call_goes_to_the_worker_that_takes_it(settings: Settings) -> None:
    def worker(name: str, accepts: tuple[str, ...]) -> lifecycle.Worker:
        @lifecycle.engine(accepts=accepts)
        async def tell(request: dict[str, Any], context: lifecycle.EngineContext) -> AsyncIterator[str]:
            yield name

        return lifecycle.Worker(tell, model="mine", **given(settings))

    workers = [worker("without", ()), worker("with", ("n",))]
    running = [asyncio.create_task(each.run()) for each in workers]
    async with connect(settings) as tracker:
        await wait_until(lambda: serves(tracker, count=2))
        for _ in range(4):
            async with await tracker.submit({**CALL, "n": 2}) as run:
                assert [event async for event in run] == ["with"]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


async def test_what_is_no_body_and_no_source_is_refused(settings: Settings) -> None:
    async with connect(settings) as tracker:
        with pytest.raises(lifecycle.InvalidValue, match="the body is a list"):
            await tracker.submit([])  # type: ignore[arg-type]
        with pytest.raises(lifecycle.InvalidValue, match="the source is a list"):
            await tracker.track([1], model="mine")  # type: ignore[arg-type]


async def test_a_full_queue_says_when_a_place_may_be_free(settings: Settings) -> None:
    @lifecycle.engine(concurrency=1)
    async def wait(request: dict[str, Any], context: lifecycle.EngineContext) -> AsyncIterator[str]:
        yield "begun"
        if request.get("slow"):
            await context.stopped()

    worker = lifecycle.Worker(wait, model="mine", **given(settings) | {"queue_limit": 1})
    running = asyncio.create_task(worker.run())
    async with connect(settings, queue_limit=1) as tracker:
        await wait_until(lambda: serves(tracker))
        async with await tracker.submit(CALL) as run:
            assert [event async for event in run] == ["begun"]
        async with await tracker.submit({**CALL, "slow": True}) as first:
            assert await anext(aiter(first)) == "begun"
            async with await tracker.submit(CALL) as second:
                assert (await tracker.get(second.id)).queue_position == 1
                (queue,) = await tracker.queue()
                assert queue.owners[0].queued == 1
                with pytest.raises(lifecycle.Overloaded) as refused:
                    await tracker.submit(CALL)
                assert refused.value.retry_after_secs is not None
                assert refused.value.retry_after_secs >= 1
        await wait_until(lambda: has_ended(tracker, first.id))
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
