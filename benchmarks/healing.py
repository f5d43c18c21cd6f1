"""Measure how long the cluster takes to recover from a death: `python -m benchmarks.healing [--replicas N]`.

Ten frontends and ten workers by default, with the leases that users get (heartbeat 3 s, lease 12 s, sweep 3 s):
a cancel through another replica, a lost client, `kill -9` of a worker and of a frontend, and a resume at another
frontend, whose text must be identical to the uninterrupted one.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx2

from lifecycle.local.embedded_redis import open_redis
from lifecycle.settings import load
from tests.cluster import Cluster, Process, running
from tests.sse import chat, error_of, post, resume, text_of
from tests.waiting import wait_until

_LONGEST_WAIT_SECS = 60.0
_WORDS = " ".join(f"w{n}" for n in range(400))


def show(what: str, value: object) -> None:
    print(f"| {what} | {value} |", flush=True)


async def ended(cluster: Cluster, rid: str, frontend: Process) -> dict[str, Any]:
    async def look() -> dict[str, Any] | None:
        record = await cluster.record(rid, frontend)
        return record if record["finished_at"] else None

    found: dict[str, Any] = await wait_until(look, timeout=_LONGEST_WAIT_SECS)
    return found


async def idle_at(cluster: Cluster, frontend: Process) -> float:
    """Seconds until `GET /v1/inflight` says 0."""
    began = time.monotonic()

    async def idle() -> bool:
        return await cluster.inflight(frontend) == 0

    await wait_until(idle, timeout=_LONGEST_WAIT_SECS)
    return time.monotonic() - began


async def cancel_elsewhere(cluster: Cluster, a: Process, b: Process) -> None:
    async with post(cluster.http, a.url, chat("x", echo_repeat=100_000), X_Request_Id="cancelled") as stream:
        await stream.read_tokens(5)
        began = time.monotonic()
        answer = await cluster.http.post(b.url + "/v1/requests/cancelled/cancel", json={"wait_ms": 9000})
        took_ms = (time.monotonic() - began) * 1000
        await stream.read()
    record = answer.json()
    stop_ms = (record["finished_at"] - record["cancel_requested_at"]) * 1000
    show("cancel at B of a stream on A: POST until 200 (the engine has stopped)", f"{took_ms:.1f} ms")
    show("… of which from the intent in Redis to the worker's confirmation", f"{stop_ms:.1f} ms")


async def lost_client(cluster: Cluster, a: Process, b: Process) -> None:
    async with post(cluster.http, a.url, chat("x", echo_repeat=100_000), X_Request_Id="left") as stream:
        await stream.read_tokens(5)
    record = await ended(cluster, "left", b)
    stop_ms = (record["finished_at"] - record["cancel_requested_at"]) * 1000
    show("client disconnects: from the frontend's word to the worker's confirmation", f"{stop_ms:.1f} ms")


async def killed_worker(cluster: Cluster, a: Process) -> None:
    async with post(cluster.http, a.url, chat("x", echo_repeat=100_000), X_Request_Id="orphan") as stream:
        await stream.read_tokens(5)
        name = (await cluster.record("orphan", a))["worker"]
        replicas = (await cluster.get("/v1/replicas", a))["data"]
        pid = next(r["pid"] for r in replicas if r["id"] == name)
        worker = next(w for w in cluster.workers if w.pid == pid)
        cluster.workers.remove(worker)
        await worker.kill()
        began = time.monotonic()
        error = error_of(await stream.read())
        framed_secs = time.monotonic() - began
        await idle_at(cluster, a)
    assert error is not None
    show(
        "kill -9 of a worker mid-stream: error frame and [DONE] at the client",
        f"{framed_secs:.1f} s ({error['error_type']})",
    )
    show("… until GET /v1/inflight is right", f"{time.monotonic() - began:.1f} s")


async def killed_frontend(cluster: Cluster, b: Process) -> None:
    doomed = await cluster.frontend()
    try:
        async with post(cluster.http, doomed.url, chat("x", echo_repeat=100_000), X_Request_Id="widow") as stream:
            await stream.read_tokens(5)
            cluster.frontends.remove(doomed)
            await doomed.kill()
            await stream.read()
    except httpx2.RemoteProtocolError:
        pass
    show("kill -9 of a frontend: until GET /v1/inflight at another is right", f"{await idle_at(cluster, b):.1f} s")
    record = await ended(cluster, "widow", b)
    show("… its request", f"{record['status']}/{record['error_type']}")


async def resume_elsewhere(cluster: Cluster, b: Process) -> None:
    doomed, before = await cluster.frontend(), ""
    try:
        async with post(
            cluster.http, doomed.url, chat(_WORDS), X_Request_Id="resumed", X_On_Disconnect="continue"
        ) as stream:
            before = await stream.read_tokens(20)
            cluster.frontends.remove(doomed)
            await doomed.kill()
            await stream.read()
    except httpx2.RemoteProtocolError:
        pass
    began = time.monotonic()
    async with resume(cluster.http, b.url, "resumed", "1-20") as stream:
        first = await stream.read_tokens(1)
        first_ms = (time.monotonic() - began) * 1000
        events = await stream.read()
    text = before + text_of(events)
    assert first
    show("resume at B after A was killed: first token", f"{first_ms:.1f} ms")
    show("… the whole text is identical to the uninterrupted one", text == _WORDS)
    show("… its status", (await ended(cluster, "resumed", b))["status"])


async def main(replicas: int) -> None:
    with open_redis(None) as url, tempfile.TemporaryDirectory() as directory:
        settings = load({"redis_url": url})
        began = time.monotonic()
        async with running(settings, Path(directory), frontends=replicas, workers=replicas) as cluster:
            print("\n| what | seen |\n|---|---|")
            show(f"{replicas} frontends and {replicas} workers are ready", f"{time.monotonic() - began:.1f} s")
            a, b = cluster.frontends[:2]
            living = (await cluster.get("/v1/replicas", b))["data"]
            show("replicas that any of them lists", len(living))
            for step in (cancel_elsewhere, lost_client):
                await step(cluster, a, b)
            await killed_worker(cluster, a)
            await killed_frontend(cluster, b)
            await resume_elsewhere(cluster, b)
            show("inflight at the end, at every frontend", {await cluster.inflight(f) for f in cluster.frontends})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--replicas", type=int, default=10)
    asyncio.run(main(parser.parse_args().replicas))
