"""A frontend told to end: it takes nothing new, lets what it has finish, and hands over or ends the rest."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable

import httpx2

from tests.cluster import Cluster, Process
from tests.conformance.calls import cancel, ended, endless, extra_frontend, refusal, send, until
from tests.sse import chat, error_of, post, resume, text_of
from tests.waiting import wait_until

WORDS = " ".join(f"w{number}" for number in range(300))


async def _drains(cluster: Cluster, frontend: Process) -> httpx2.Response:
    """Tell it to, and wait until it says so."""
    frontend.signal(signal.SIGTERM)

    async def not_ready() -> httpx2.Response | None:
        answer = await cluster.http.get(frontend.url + "/ready")
        return answer if answer.status_code == 503 else None

    answer = await wait_until(not_ready)
    assert answer is not None
    return answer


async def test_it_refuses_what_is_new_and_finishes_what_it_has(cluster: Cluster, rid: str) -> None:
    async with extra_frontend(cluster, drain_timeout_secs=60.0) as leaving:
        async with post(cluster.http, leaving.url, endless(), X_Request_Id=rid) as stream:
            await stream.read_tokens(1)
            answer = await _drains(cluster, leaving)
            assert "draining" in answer.json()["reason"]
            assert (await cluster.http.get(leaving.url + "/live")).status_code == 200
            refused = await send(cluster, chat("x"), leaving)
            assert refusal(refused, 503)["code"] == "draining"
            assert int(refused.headers["retry-after"]) >= 1
            replicas = (await cluster.get("/v1/replicas"))["data"]
            assert [r["state"] for r in replicas if r["url"] == leaving.url] == ["draining"]
            await stream.read_tokens(50)
            await cancel(cluster, rid, mode="stop")
            assert error_of(await stream.read()) is None
        assert await leaving.terminate() == 0
    replicas = (await cluster.get("/v1/replicas"))["data"]
    assert leaving.url not in [r["url"] for r in replicas]


async def test_every_answer_closes_its_connection(cluster: Cluster, new_id: Callable[[], str]) -> None:
    """A load balancer in front of it balances connections, so a client that kept its own would be refused for ever."""
    streamed, collected = new_id(), new_id()

    def closes(answer: httpx2.Response) -> bool:
        return answer.headers.get("connection", "").lower() == "close"

    async with (
        extra_frontend(cluster, drain_timeout_secs=60.0) as leaving,
        post(cluster.http, leaving.url, endless(), X_Request_Id=streamed) as stream,
        asyncio.TaskGroup() as group,
    ):
        await stream.read_tokens(1)
        assert not closes(stream.response)
        call = leaving.url + "/v1/chat/completions"
        body = endless() | {"stream": False}
        unary = group.create_task(cluster.http.post(call, json=body, headers={"X-Request-Id": collected}))
        await until(cluster, collected, "running")
        answers = {"the probe": await _drains(cluster, leaving)}
        for path in ("/live", "/v1/models", "/nowhere"):
            answers[path] = await cluster.http.get(leaving.url + path)
        answers["a refused call"] = await send(cluster, chat("x"), leaving)
        answers["a malformed call"] = await cluster.http.get(
            leaving.url + "/live", headers={"X-Request-Id": "not an id"}
        )
        async with resume(cluster.http, leaving.url, streamed) as replay:
            answers["a replay"] = replay.response
        for rid in (streamed, collected):
            await cancel(cluster, rid, mode="stop")
        answers["a call from before"] = await unary
        await stream.read()
    assert [what for what, answer in answers.items() if not closes(answer)] == []


async def test_when_its_time_is_over_a_stream_ends_with_a_frame_and_what_continues_goes_on(
    cluster: Cluster, new_id: Callable[[], str]
) -> None:
    ends, goes_on = new_id(), new_id()
    async with (
        extra_frontend(cluster, drain_timeout_secs=0.1) as leaving,
        post(cluster.http, leaving.url, endless(), X_Request_Id=ends) as ending,
        post(cluster.http, leaving.url, chat(WORDS), X_Request_Id=goes_on, X_On_Disconnect="continue") as continued,
    ):
        await ending.read_tokens(1)
        before = await continued.read_tokens(1)
        leaving.signal(signal.SIGTERM)
        for stream in (ending, continued):
            error = error_of(await stream.read())
            assert error is not None
            assert (error["type"], error["code"], error["error_type"]) == ("service_unavailable", 503, "frontend_lost")
        before += text_of([event for event in continued.events if event.id][1:])
        last = [event.id for event in continued.events if event.id][-1]
        async with resume(cluster.http, cluster.frontends[1].url, goes_on, last or "") as rest:
            assert before + text_of(await rest.read()) == WORDS
    assert (await ended(cluster, ends))["error_type"] == "frontend_lost"
    record = await ended(cluster, goes_on)
    frontends = {f["id"] for f in (await cluster.get("/v1/inflight"))["frontends"]}
    assert (record["status"], record["frontend"] in frontends) == ("completed", True)
