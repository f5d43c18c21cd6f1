"""Use everything that is public in `import lifecycle`, with types that `mypy --strict` checks.

LIFECYCLE_REDIS_URL=redis://localhost python whole_surface.py
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Response
from starlette.testclient import TestClient

import lifecycle
from lifecycle.fastapi import Tracked
from lifecycle.testing import wait_for_status


@lifecycle.engine(concurrency=4)
async def upper(request: dict[str, Any], context: lifecycle.EngineContext) -> AsyncIterator[str]:
    """Answer in capitals."""
    for word in request["messages"][-1]["content"].split():
        if context.is_stopped or context.is_killed:
            return
        yield f"{word.upper()} "


@lifecycle.engine
async def refuse(request: dict[str, Any], context: lifecycle.EngineContext) -> AsyncIterator[str]:
    """Fail, as the question says."""
    if request["messages"][-1]["content"] == "later":
        raise lifecycle.Unavailable("not now", retry_after_secs=5)
    raise lifecycle.EngineError(f"no answer in attempt {context.attempt}", status=422, code="no_answer")
    yield ""


async def count(context: lifecycle.EngineContext) -> AsyncIterator[int]:
    """Count until it is stopped."""
    number = 0
    while not context.is_stopped:
        number += 1
        yield number
        await asyncio.sleep(0.01)


@asynccontextmanager
async def connected(app: FastAPI) -> AsyncIterator[None]:
    """Connect the tracker of an application; `lifecycle.fastapi.lifespan` is the short form."""
    async with lifecycle.fastapi.connect(app, endpoint="counter"):
        yield


app = FastAPI(lifespan=connected)
app.include_router(lifecycle.fastapi.router())
short_form = FastAPI(lifespan=lifecycle.fastapi.lifespan)


@app.post("/three")
async def three(tracked: Tracked) -> Response:
    """Stream three events."""

    async def events() -> AsyncIterator[int]:
        for number in (1, 2, 3):
            yield number

    return await tracked.stream(events(), model="three", labels={"route": "three"}, headers={"x-own": "yes"})


@app.post("/ask")
async def ask(question: str, tracked: Tracked) -> Response:
    """Answer by a worker, or say why not."""
    try:
        async with await tracked.tracker.submit(chat("nobody", question), id=tracked.id, owner=tracked.owner) as run:
            return Response("".join([event async for event in run]))
    except lifecycle.LifecycleError as refused:
        return lifecycle.fastapi.refusal(refused, tracked.id)


def chat(model: str, question: str) -> dict[str, Any]:
    """Return the body of a chat completion."""
    return {"model": model, "messages": [{"role": "user", "content": question}]}


async def track(tracker: lifecycle.Tracker) -> None:
    """Run, resume, stop and cancel what runs here."""
    run: lifecycle.Run = await tracker.track(count, model="counter", owner="acme", on_disconnect="continue")
    async with run, await tracker.track(count, model="counter", owner="acme", parent=run.id) as child:
        last = ""
        async for at, event in run.events():
            last = at
            if event == 3:
                break
        resumed: lifecycle.Resumed = await tracker.resume(run.id, after=last)
        async with resumed:
            assert await anext(aiter(resumed)) == ("1-4", 4)
        assert (await tracker.inflight("counter")).running == 2
        record: lifecycle.RequestRecord = await tracker.cancel(run.id, reason="enough", wait_secs=5)
        assert (record.status, record.error_type) == (lifecycle.Status.CANCELLED, lifecycle.ErrorType.CANCELLED)
        ended = await wait_for_status(tracker, child.id, "cancelled")
        assert (ended.parent, ended.cancelled_by) == (run.id, f"parent:{run.id}")
    for rid in (run.id, "a b"):
        try:
            await tracker.track(count, model="counter", id=rid)
        except (lifecycle.Conflict, lifecycle.InvalidValue) as refused:
            print(refused.message)
    assert [own.id for own in await tracker.requests(owner="acme")] == [child.id, run.id]


async def submit(tracker: lifecycle.Tracker) -> None:
    """Let workers answer, and see how they fail."""
    async with await tracker.submit(chat("upper", "one two"), deadline_secs=30, labels={"team": "a"}) as run:
        assert [event async for event in run] == ["ONE ", "TWO "]
    assert (await tracker.get(run.id)).labels == {"team": "a"}
    try:
        async with await tracker.submit(chat("refuse", "x")) as failing:
            async for _ in failing:
                pass
    except lifecycle.RequestFailed as failure:
        print(failure.error_type, failure.message, failure.request_id, failure.detail and failure.detail.code)
    try:
        await tracker.submit(chat("nobody", "x"))
    except (lifecycle.NotFound, lifecycle.Overloaded, lifecycle.Unavailable) as refused:
        print(refused.message)


async def ask_the_cluster() -> None:
    """Ask and command as a script does."""
    async with lifecycle.AsyncClient() as client:
        counts: lifecycle.Inflight = await client.inflight()
        groups: list[lifecycle.InflightGroup] = list(counts.groups)
        frontends: list[lifecycle.InflightFrontend] = list(counts.frontends)
        replicas: list[lifecycle.Replica] = await client.replicas()
        assert {model for replica in replicas for model in replica.models} == {"upper", "refuse"}
        newest = (await client.requests(model="upper"))[0]
        assert [event async for event in client.stream(newest.id)] == ["ONE ", "TWO "]
        assert [event async for event in client.events(newest.id, after="1-1")] == [("1-2", "TWO ")]
        waiting: list[lifecycle.ModelQueue] = await client.queue()
        owners: list[lifecycle.QueueOwner] = [owner for queue in waiting for owner in queue.owners]
        assert (counts.total, groups, sum(owner.queued for owner in owners)) == (0, [], 0), frontends
        worker = next(replica.id for replica in replicas if replica.role == "worker")
        assert (await client.pause(worker)).id == (await client.resume(worker)).id == worker
        found: lifecycle.Cancelled = await client.cancel_many(model="counter", dry_run=True)
        assert found.matched == 0


def ask_without_a_loop() -> None:
    """Ask as a notebook does."""
    with lifecycle.Client() as client:
        newest = next(client.requests(model="upper"))
        assert client.get(newest.id) == newest
        assert (list(client.stream(newest.id)), client.inflight().total) == (["ONE ", "TWO "], 0)
        assert list(client.events(newest.id, after="1-1")) == [("1-2", "TWO ")]
        assert client.cancel(newest.id).status == lifecycle.Status.COMPLETED
        assert client.cancel_many(model="counter").requested == 0


def serve() -> None:
    """Serve the application, and the product's own frontend."""
    with TestClient(app) as http:
        assert http.post("/three").text.endswith("data: [DONE]\n\n")
        assert http.post("/ask?question=x").status_code == 404
        assert http.get("/v1/inflight").json()["total"] == 0
    with TestClient(lifecycle.fastapi.create_app(), base_url="http://localhost") as http:
        assert http.get("/ready").status_code == 200


async def until_served(tracker: lifecycle.Tracker) -> None:
    """Wait for both workers."""
    while True:
        models = {model for replica in await tracker.replicas() for model in replica.models}
        if {"upper", "refuse"} <= models:
            return
        await asyncio.sleep(0.05)


async def main() -> None:
    """Run all of it."""
    try:
        lifecycle.Client(shards=0)
    except lifecycle.InvalidSetting as failure:
        print(failure)
    workers = [lifecycle.Worker(upper, model="upper"), lifecycle.Worker(refuse, model="refuse")]
    async with asyncio.TaskGroup() as group, lifecycle.Tracker.connect(endpoint="counter") as tracker:
        for worker in workers:
            group.create_task(worker.run())
        async with asyncio.timeout(10):
            await until_served(tracker)
        await track(tracker)
        await submit(tracker)
        await ask_the_cluster()
        await asyncio.to_thread(ask_without_a_loop)
        await asyncio.to_thread(serve)
        tracker.draining = True
        for worker in workers:
            worker.drain()
    print(f"lifecycle {lifecycle.__version__}: all of it works")


if __name__ == "__main__":
    asyncio.run(main())
