"""`/v1/requests`: any replica lists, reads and cancels the whole cluster's requests."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from tests.cluster import Cluster
from tests.conformance.calls import (
    RECORD_FIELDS,
    TERMINAL,
    cancel,
    ended,
    endless,
    journaled,
    lines,
    lists,
    refusal,
    send,
    until,
)
from tests.sse import chat, error_of, post, text_of

NewId = Callable[[], str]


async def test_a_record_has_exactly_the_agreed_fields(cluster: Cluster, rid: str) -> None:
    await send(cluster, chat("one two", stream=False), X_Request_Id=rid)
    a, b = [await cluster.record(rid, frontend) for frontend in cluster.frontends]
    assert a == b
    assert set(a) == RECORD_FIELDS
    assert a["object"] == "request"
    assert (a["status"], a["error_type"], a["finish_reason"], a["output_tokens"]) == ("completed", "", "stop", 2)
    assert a["error_message"] is a["cancel_requested_at"] is a["cancel_reason"] is a["cancel_mode"] is None
    assert a["created_at"] <= a["started_at"] <= a["first_token_at"] <= a["finished_at"]
    assert a["request_type"] == "unary"
    assert a["attempt"] == 1


async def test_what_has_not_happened_is_null(cluster: Cluster, new_id: NewId, tmp_path: Path) -> None:
    running, queued = new_id(), new_id()
    async with post(cluster.http, cluster.frontends[0].url, journaled(tmp_path / "j"), X_Request_Id=running) as first:
        await first.read_tokens(1)
        async with post(cluster.http, cluster.frontends[0].url, journaled(tmp_path / "k"), X_Request_Id=queued):
            record = await until(cluster, queued, "queued", frontend=cluster.frontends[1])
            for name in ("started_at", "first_token_at", "last_token_at", "finished_at", "worker", "finish_reason"):
                assert record[name] is None
            assert record["output_tokens"] == 0
            assert (await cancel(cluster, queued)).status_code == 200
        await cancel(cluster, running)
    assert not (tmp_path / "k").exists()


async def test_the_listing_is_newest_first_and_pages(cluster: Cluster, new_id: NewId) -> None:
    ids = [new_id() for _ in range(5)]
    for name in ids:
        await send(cluster, chat("x", stream=False), X_Request_Id=name)
    url = cluster.frontends[1].url + "/v1/requests"
    seen: list[str] = []
    after = ""
    for _ in range(3):
        answer = await cluster.http.get(url, params={"limit": 2, **({"after": after} if after else {})})
        seen += lists(answer)
        after = seen[-1]
        assert answer.json()["has_more"] is True
    assert seen[:5] == ids[::-1]
    everything = await cluster.http.get(url, params={"limit": 1000})
    assert everything.json()["has_more"] is False


async def test_filters(cluster: Cluster, new_id: NewId) -> None:
    done, open_ = new_id(), new_id()
    await send(cluster, chat("x", stream=False), X_Request_Id=done)
    url = cluster.frontends[1].url + "/v1/requests"
    async with post(cluster.http, cluster.frontends[0].url, endless(), X_Request_Id=open_) as stream:
        await stream.read_tokens(1)
        record = await cluster.record(open_)

        async def listed(**query: str) -> list[str]:
            return lists(await cluster.http.get(url, params=query))

        assert await listed(status="inflight") == [open_]
        assert await listed(status="running", model="echo", endpoint="chat_completions") == [open_]
        assert await listed(status="inflight", frontend=record["frontend"]) == [open_]
        assert await listed(status="inflight", worker=record["worker"]) == [open_]
        assert await listed(status="queued") == []
        assert await listed(status="inflight", model="raiser") == []
        assert await listed(endpoint="completions", worker=record["worker"], status="running") == []
        assert done in await listed(status="completed")
        await cancel(cluster, open_)
    assert open_ in await listed(status="cancelled")


@pytest.mark.parametrize("how", ["body", "query", "delete"])
async def test_a_cancel_is_idempotent_and_confirmed(cluster: Cluster, rid: str, how: str) -> None:
    url = f"{cluster.frontends[1].url}/v1/requests/{rid}"
    async with post(cluster.http, cluster.frontends[0].url, endless(), X_Request_Id=rid) as stream:
        await stream.read_tokens(2)
        if how == "body":
            answer = await cluster.http.post(url + "/cancel", json={"wait_ms": 9000, "reason": "because"})
        elif how == "query":
            answer = await cluster.http.post(url + "/cancel?wait_ms=9000&reason=because")
        else:
            answer = await cluster.http.delete(url + "?wait_ms=9000&reason=because")
        assert answer.status_code == 200
        error = error_of(await stream.read())
    assert error is not None
    assert error["message"] == "because"
    record = answer.json()
    assert (record["status"], record["cancel_mode"], record["cancel_reason"]) == ("cancelled", "kill", "because")
    again = await cancel(cluster, rid, mode="stop", reason="later")
    assert again.status_code == 200
    assert again.json() == record
    assert text_of(stream.events)
    assert record["output_tokens"] == len([e for e in stream.events if e.id])


async def test_stop_delivers_what_is_there_and_completes(cluster: Cluster, rid: str) -> None:
    async with post(cluster.http, cluster.frontends[0].url, endless(), X_Request_Id=rid) as stream:
        await stream.read_tokens(2)
        answer = await cancel(cluster, rid, cluster.frontends[1], mode="stop")
        assert answer.status_code == 200
        events = await stream.read()
    assert error_of(events) is None
    assert events[-2].data["choices"][0]["finish_reason"] == "stop"
    record = answer.json()
    assert (record["status"], record["cancel_mode"], record["error_type"]) == ("completed", "stop", "")


async def test_an_engine_that_ignores_a_stop_is_ended(cluster: Cluster, rid: str) -> None:
    """`silent` only listens for a kill; the grace is short here."""
    async with post(cluster.http, cluster.frontends[0].url, chat("1", "silent"), X_Request_Id=rid) as stream:
        await stream.read_tokens(1)
        answer = await cancel(cluster, rid, mode="stop")
        assert answer.status_code == 200
        events = await stream.read()
    assert error_of(events) is None
    assert (await cluster.record(rid))["status"] == "completed"


@pytest.mark.parametrize("mode", ["stop", "kill"])
async def test_a_cancelled_queued_request_never_starts(
    cluster: Cluster, new_id: NewId, tmp_path: Path, mode: str
) -> None:
    first, second, third = new_id(), new_id(), new_id()
    url, journal = cluster.frontends[0].url, tmp_path / "journal"
    async with post(cluster.http, url, journaled(journal), X_Request_Id=first) as blocking:
        await blocking.read_tokens(1)
        async with post(cluster.http, url, journaled(journal), X_Request_Id=second) as waiting:
            answer = await cancel(cluster, second, cluster.frontends[1], mode=mode)
            assert answer.status_code == 200
            assert answer.json()["status"] == "cancelled"
            error = error_of(await waiting.read())
            assert error is not None
            assert error["error_type"] == "cancelled"
        await cancel(cluster, first)
    async with post(cluster.http, url, journaled(journal), X_Request_Id=third) as stream:
        await stream.read_tokens(1)
        await cancel(cluster, third)
    assert not any(second in line for line in lines(journal))


async def test_a_unary_request_cancelled_by_id_answers_499(cluster: Cluster, rid: str) -> None:
    body = {**endless(), "stream": False}
    async with asyncio.TaskGroup() as group:
        calling = group.create_task(send(cluster, body, X_Request_Id=rid))
        await until(cluster, rid, "running")
        assert (await cancel(cluster, rid, cluster.frontends[1], reason="no more")).status_code == 200
    error = refusal(calling.result(), 499)
    assert (error["type"], error["message"], error["error_type"]) == ("request_cancelled", "no more", "cancelled")
    assert calling.result().headers["x-should-retry"] == "false"


@pytest.mark.parametrize(
    "fields",
    [{"mode": "maim"}, {"wait_ms": -1}, {"wait_ms": 30_001}, {"wait_ms": "soon"}, {"wait_ms": True}, {"reason": 7}],
)
async def test_bad_cancels_are_refused_and_change_nothing(
    cluster: Cluster, rid: str, fields: dict[str, object]
) -> None:
    async with post(cluster.http, cluster.frontends[0].url, endless(), X_Request_Id=rid) as stream:
        await stream.read_tokens(1)
        refusal(await cluster.http.post(f"{cluster.frontends[1].url}/v1/requests/{rid}/cancel", json=fields), 400)
        assert (await cluster.record(rid))["cancel_requested_at"] is None
        await cancel(cluster, rid)


async def test_an_id_in_use_is_a_conflict_at_every_replica(cluster: Cluster, rid: str) -> None:
    async with post(cluster.http, cluster.frontends[0].url, endless(), X_Request_Id=rid) as stream:
        await stream.read_tokens(1)
        for frontend in cluster.frontends:
            answer = await send(cluster, chat("x"), frontend, X_Request_Id=rid)
            refusal(answer, 409)
            assert answer.headers["x-should-retry"] == "false"
        await cancel(cluster, rid)
    assert (await ended(cluster, rid))["status"] in TERMINAL
    refusal(await send(cluster, chat("x"), X_Request_Id=rid), 409)


async def test_the_timeline_is_told_at_any_frontend(cluster: Cluster, rid: str) -> None:
    await send(cluster, chat("x", stream=False), X_Request_Id=rid)
    url = f"{cluster.frontends[1].url}/v1/requests/{rid}/timeline"
    answer = await cluster.http.get(url)
    entries = answer.json()["data"]
    assert (answer.status_code, answer.json()["object"]) == (200, "list")
    assert (entries[0]["what"], entries[0]["owner"], entries[-1]["what"]) == ("admitted", None, "ended")
    assert all(earlier["at"] <= later["at"] for earlier, later in pairwise(entries))
    assert (await cluster.http.head(url)).status_code == 200
    refusal(await cluster.http.get(url.replace(rid, "nobody")), 404)
