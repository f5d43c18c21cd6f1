"""`POST /v1/requests/cancel`: cancel what requests have in common, from any replica."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx2
import pytest

from tests.cluster import Cluster
from tests.conformance.calls import RECORD_FIELDS, cancel, ended, endless, refusal, send, until
from tests.sse import chat, post
from tests.waiting import wait_until


async def select(cluster: Cluster, **body: Any) -> httpx2.Response:
    return await cluster.http.post(cluster.frontends[1].url + "/v1/requests/cancel", json=body)


@asynccontextmanager
async def flock(cluster: Cluster, *rids: str, model: str = "echo") -> AsyncIterator[None]:
    """Start requests that run until they are ended, one after the other, so that the last one is the newest.

    Each must have started before the next is sent: on a busy machine they would otherwise fill the short queue, and
    the last ones would be refused.
    """
    async with AsyncExitStack() as stack:
        url = cluster.frontends[0].url
        streams = []  # all are kept: a stream that is garbage collected closes its connection
        for rid in rids:
            streams.append(await stack.enter_async_context(post(cluster.http, url, endless(model), X_Request_Id=rid)))
            assert await streams[-1].read_tokens(1), f"{rid} has not started: {streams[-1].response.status_code}"
        yield
        for rid in rids:
            await cancel(cluster, rid)


async def test_of_a_model(cluster: Cluster, new_id: Callable[[], str]) -> None:
    a, b, other = new_id(), new_id(), new_id()
    async with flock(cluster, a, b), flock(cluster, other, model="brief"):
        answer = await select(cluster, model="echo", reason="too many")
        assert answer.status_code == 200
        page = answer.json()
        assert {key: page[key] for key in page if key != "data"} == {
            "object": "list",
            "matched": 2,
            "requested": 2,
            "dry_run": False,
            "has_more": False,
        }
        assert [record["id"] for record in page["data"]] == [b, a]
        assert all(record.keys() == RECORD_FIELDS for record in page["data"])
        for rid in (a, b):
            record = await ended(cluster, rid)
            assert (record["status"], record["error_message"]) == ("cancelled", "too many")
        assert (await cluster.record(other))["status"] == "running"
        assert (await select(cluster, model="echo")).json()["matched"] == 0


async def test_a_dry_run_only_shows(cluster: Cluster, rid: str) -> None:
    async with flock(cluster, rid):
        page = (await select(cluster, model="echo", dry_run=True)).json()
        assert (page["matched"], page["requested"], page["dry_run"]) == (1, 0, True)
        assert [record["id"] for record in page["data"]] == [rid]
        record = await cluster.record(rid)
        assert (record["status"], record["cancel_requested_at"]) == ("running", None)


async def test_by_frontend_worker_status_and_endpoint(cluster: Cluster, rid: str, new_id: Callable[[], str]) -> None:
    async with flock(cluster, rid):
        record = await cluster.record(rid)
        for field in ("frontend", "worker", "endpoint", "status"):
            page = (await select(cluster, **{field: record[field]}, dry_run=True)).json()
            assert rid in [found["id"] for found in page["data"]]
        for field in ("frontend", "worker", "model"):
            assert (await select(cluster, **{field: new_id()})).json()["matched"] == 0
        assert (await select(cluster, model="echo", status="queued")).json()["matched"] == 0
        page = (await select(cluster, worker=record["worker"], model="echo", mode="stop")).json()
        assert page["data"][0]["cancel_mode"] == "stop"
        assert (await ended(cluster, rid))["status"] == "completed"


async def test_only_what_is_old_enough(cluster: Cluster, new_id: Callable[[], str]) -> None:
    old, new = new_id(), new_id()
    async with flock(cluster, old):
        created_at = (await cluster.record(old))["created_at"]

        async def grown() -> float:
            """Return the request's age, once it differs enough from the other's."""
            age_secs = (await cluster.get("/v1/inflight"))["as_of"] - created_at
            return age_secs if age_secs > 0.3 else 0.0

        age_secs = await wait_until(grown)
        async with flock(cluster, new):
            page = (await select(cluster, model="echo", older_than_secs=3600)).json()
            assert page["matched"] == 0
            page = (await select(cluster, model="echo", older_than_secs=age_secs)).json()
            assert [record["id"] for record in page["data"]] == [old]
            assert (await cluster.record(new))["status"] == "running"


async def test_pages(cluster: Cluster, new_id: Callable[[], str]) -> None:
    rids = [new_id() for _ in range(5)]
    async with flock(cluster, *rids):
        seen: list[str] = []
        after: dict[str, str] = {}
        while True:
            page = (await select(cluster, model="echo", limit=2, **after)).json()
            seen += [record["id"] for record in page["data"]]
            if not page["has_more"]:
                break
            after = {"after": seen[-1]}
        assert seen == rids[::-1]
        await asyncio.gather(*(ended(cluster, rid) for rid in rids))


async def test_a_queued_one_never_starts(cluster: Cluster, new_id: Callable[[], str], tmp_path: Any) -> None:
    running, queued = new_id(), new_id()
    body = chat(str(tmp_path / "journal"), "single")
    async with post(cluster.http, cluster.frontends[0].url, body, X_Request_Id=running):
        await until(cluster, running, "running")
        async with post(cluster.http, cluster.frontends[0].url, body, X_Request_Id=queued):
            await until(cluster, queued, "queued")
            page = (await select(cluster, model="single", status="queued")).json()
            assert [(r["id"], r["status"], r["started_at"]) for r in page["data"]] == [(queued, "cancelled", None)]
        await cancel(cluster, running)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "body"),
        ({"dry_run": True, "limit": 5, "mode": "kill", "reason": "x"}, "body"),
        ({"model": None}, "body"),
        ({"model": ""}, "model"),
        ({"model": ["echo"]}, "model"),
        ({"model": "x" * 513}, "model"),
        ({"modle": "echo", "older_than_secs": 1}, "modle"),
        ({"id": "r1"}, "id"),
        ({"status": "completed"}, "status"),
        ({"endpoint": "no such"}, "endpoint"),
        ({"older_than_secs": -1}, "older_than_secs"),
        ({"older_than_secs": "10m"}, "older_than_secs"),
        ({"older_than_secs": True}, "older_than_secs"),
        ({"model": "echo", "limit": 0}, "limit"),
        ({"model": "echo", "limit": 1001}, "limit"),
        ({"model": "echo", "mode": "maim"}, "mode"),
        ({"model": "echo", "reason": 7}, "reason"),
        ({"model": "echo", "dry_run": "yes"}, "dry_run"),
        ({"model": "echo", "after": "nosuch"}, "after"),
    ],
)
async def test_what_is_not_clear_cancels_nothing(cluster: Cluster, body: dict[str, Any], param: str) -> None:
    assert refusal(await select(cluster, **body), 400)["param"] == param


@pytest.mark.parametrize("content", [b"", b"[]", b"null", b'"all"', b"{", b'{"model"'])
async def test_a_body_that_is_no_selection_is_refused(cluster: Cluster, content: bytes) -> None:
    answer = await cluster.http.post(cluster.frontends[0].url + "/v1/requests/cancel", content=content)
    refusal(answer, 400)


async def test_a_request_may_be_called_cancel(cluster: Cluster) -> None:
    url = cluster.frontends[0].url + "/v1/requests/cancel"
    refusal(await cluster.http.get(url), 404)
    refusal(await cluster.http.delete(url), 404)
    assert (await send(cluster, chat("one two"), X_Request_Id="cancel")).status_code == 200
    assert (await cluster.http.get(url)).json()["id"] == "cancel"
    assert (await cluster.http.delete(url)).json()["status"] == "completed"
    assert (await cancel(cluster, "cancel")).json()["id"] == "cancel"
