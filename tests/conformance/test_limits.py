"""Time limits by header, and the limits of the queue."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.cluster import Cluster
from tests.conformance.calls import cancel, endless, extra_frontend, journaled, lines, refusal, send
from tests.conformance.conftest import QUEUE_LIMIT
from tests.sse import Stream, chat, error_of, post, resume

NewId = Callable[[], str]


async def test_a_queue_timeout_ends_what_waits_and_it_never_starts(
    cluster: Cluster, new_id: NewId, tmp_path: Path
) -> None:
    first, second = new_id(), new_id()
    url, journal = cluster.frontends[0].url, tmp_path / "journal"
    async with post(cluster.http, url, journaled(journal), X_Request_Id=first) as blocking:
        await blocking.read_tokens(1)
        async with post(
            cluster.http, url, journaled(journal), X_Request_Id=second, X_Queue_Timeout_Secs="0.3"
        ) as stream:
            error = error_of(await stream.read())
        assert error is not None
        assert (error["type"], error["code"], error["error_type"]) == ("timeout_error", 504, "queue_timeout")
        assert "0.3 seconds" in error["message"]
        unary = await send(cluster, {**journaled(journal), "stream": False}, X_Queue_Timeout_Secs="0.2")
        assert refusal(unary, 504)["error_type"] == "queue_timeout"
        await cancel(cluster, first)
    assert {line.split()[1] for line in lines(journal)} == {first}


@pytest.mark.parametrize(
    ("header", "model", "error_type"),
    [("X-First-Token-Timeout-Secs", "0", "first_token_timeout"), ("X-Deadline-Secs", "1", "deadline")],
)
async def test_limits_of_a_running_request(
    cluster: Cluster, rid: str, header: str, model: str, error_type: str
) -> None:
    async with post(
        cluster.http, cluster.frontends[0].url, chat(model, "silent"), X_Request_Id=rid, **{header: "0.3"}
    ) as stream:
        error = error_of(await stream.read())
    assert error is not None
    assert (error["type"], error["code"], error["error_type"]) == ("timeout_error", 504, error_type)
    record = await cluster.record(rid)
    assert (record["status"], record["error_type"]) == ("failed", error_type)
    unary = await send(cluster, chat(model, "silent", stream=False), None, **{header: "0.3"})
    assert refusal(unary, 504)["error_type"] == error_type


async def test_a_first_token_in_time_lifts_its_limit(cluster: Cluster, rid: str) -> None:
    url = cluster.frontends[0].url
    async with post(cluster.http, url, endless(), X_Request_Id=rid, X_First_Token_Timeout_Secs="2") as stream:
        await stream.read_tokens(500)  # at 200 a second: past the limit
        await cancel(cluster, rid)


async def test_a_full_queue_refuses_and_says_so(cluster: Cluster, new_id: NewId, tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        ids = [new_id() for _ in range(QUEUE_LIMIT + 1)]
        held: list[Stream] = []  # a stream that nobody holds is closed: its client has gone
        for number, name in enumerate(ids):
            stream = await stack.enter_async_context(
                post(cluster.http, cluster.frontends[number % 2].url, journaled(tmp_path / "j"), X_Request_Id=name)
            )
            held.append(stream)
            assert stream.response.status_code == 200
            if number == 0:
                await stream.read_tokens(1)
        answer = await send(cluster, journaled(tmp_path / "j"))
        error = refusal(answer, 503)
        assert error["code"] == "queue_full"
        assert int(answer.headers["retry-after"]) >= 1
        assert await cluster.metric("lifecycle_rejections_total", model="single", reason="queue_full") >= 1
        for name in reversed(ids):
            assert (await cancel(cluster, name)).status_code == 200


async def test_a_header_makes_a_limit_shorter_and_never_longer(cluster: Cluster, rid: str, tmp_path: Path) -> None:
    names = {
        "queue_timeout": "X-Queue-Timeout-Secs",
        "first_token_timeout": "X-First-Token-Timeout-Secs",
        "deadline": "X-Deadline-Secs",
    }
    journal = tmp_path / "journal"
    bodies = {
        "queue_timeout": journaled(journal),
        "first_token_timeout": chat("0", "silent"),
        "deadline": chat("1", "silent"),
    }
    limits = {"queue_timeout_secs": 0.3, "first_token_timeout_secs": 0.4, "deadline_secs": 0.5}
    async with (
        extra_frontend(cluster, **limits) as strict,
        post(cluster.http, cluster.frontends[0].url, journaled(journal), X_Request_Id=rid) as blocking,
    ):
        await blocking.read_tokens(1)
        for (error_type, header), limit in zip(names.items(), limits.values(), strict=True):
            for asked, granted in (("60", limit), ("0.1", 0.1)):
                async with post(cluster.http, strict.url, bodies[error_type], **{header: asked}) as stream:
                    error = error_of(await stream.read())
                assert error is not None
                assert error["error_type"] == error_type
                assert f"{granted:g} seconds" in error["message"]
        await cancel(cluster, rid)


async def test_a_frontend_holds_so_many_streams_and_no_more(cluster: Cluster, new_id: NewId) -> None:
    rid = new_id()
    async with (
        extra_frontend(cluster, max_readers=1) as narrow,
        post(cluster.http, narrow.url, endless(), X_Request_Id=rid) as stream,
    ):
        await stream.read_tokens(1)
        for answer in (
            await send(cluster, chat("one more"), narrow),
            await cluster.http.get(f"{narrow.url}/v1/requests/{rid}/stream"),
        ):
            assert refusal(answer, 503)["code"] == "overloaded"
            assert int(answer.headers["retry-after"]) >= 1
        async with resume(cluster.http, cluster.frontends[0].url, rid) as elsewhere:
            await elsewhere.read_tokens(1)
        await cancel(cluster, rid)
