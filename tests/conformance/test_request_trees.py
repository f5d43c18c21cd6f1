"""Request trees over HTTP: `X-Parent-Request-Id`, and what is shown of parents and children."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest

from tests.cluster import Cluster
from tests.conformance.calls import cancel, ended, endless, refusal, send
from tests.sse import chat, error_of, post


async def test_cancelling_the_parent_at_one_frontend_ends_three_levels_at_both(
    cluster: Cluster, new_id: Callable[[], str]
) -> None:
    here, there = (frontend.url for frontend in cluster.frontends)
    top, middle, leaf = new_id(), new_id(), new_id()
    async with AsyncExitStack() as streams:
        for url, rid, parent in ((here, top, None), (there, middle, top), (here, leaf, middle)):
            named: dict[str, Any] = {"X_Parent_Request_Id": parent} if parent else {}
            stream = await streams.enter_async_context(
                post(cluster.http, url, endless(), X_Request_Id=rid, X_On_Disconnect="continue", **named)
            )
            await stream.read_tokens(1)
        tree = (await cluster.http.get(f"{there}/v1/requests/{middle}/tree")).json()
        assert [(node["id"], node["parent"], node["depth"]) for node in tree["data"]] == [
            (top, None, 0),
            (middle, top, 1),
            (leaf, middle, 2),
        ]
        assert tree["has_more"] is False
        told = (await cluster.http.get(f"{here}/v1/requests/{top}/timeline")).json()["data"]
        assert [entry["child"] for entry in told if entry["what"] == "child_started"] == [middle]
        await cancel(cluster, top, cluster.frontends[1])
        error = error_of(await stream.read())
    assert error is not None
    assert (error["error_type"], error["message"]) == ("cancelled", f"Its parent, {middle}, was cancelled")
    for rid, parent in ((middle, top), (leaf, middle)):
        record = await ended(cluster, rid)
        assert (record["status"], record["parent"]) == ("cancelled", parent)
        assert (record["cancelled_by"], record["cancelled_via"]) == (f"parent:{parent}", None)


async def test_a_child_of_a_completed_parent_runs_and_its_idempotent_repetition_attaches(
    cluster: Cluster, rid: str
) -> None:
    await send(cluster, chat("x", stream=False), X_Request_Id=rid)
    key: dict[str, Any] = {"Idempotency_Key": f"key-{rid}", "X_Parent_Request_Id": rid}
    first = await send(cluster, chat("x", stream=False), **key)
    again = await send(cluster, chat("x", stream=False), **key)
    assert (first.status_code, again.status_code) == (200, 200)
    assert first.headers["x-request-id"] == again.headers["x-request-id"]
    assert (await cluster.record(first.headers["x-request-id"]))["parent"] == rid


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", {"model": "echo", "messages": [{"role": "user", "content": "x"}]}),
        ("/v1/completions", {"model": "echo", "prompt": "x"}),
        ("/v1/responses", {"model": "echo", "input": "x"}),
    ],
)
async def test_a_parent_that_is_malformed_unknown_or_ended_is_refused(
    cluster: Cluster, rid: str, path: str, body: dict[str, Any]
) -> None:
    async with post(cluster.http, cluster.frontends[0].url, endless(), X_Request_Id=rid) as stream:
        await stream.read_tokens(1)
        await cancel(cluster, rid)
    for parent, status, code in (("a b", 400, None), ("nobody", 404, "parent_not_found"), (rid, 409, "parent_ended")):
        headers = {"X-Parent-Request-Id": parent}
        answer = await cluster.http.post(cluster.frontends[1].url + path, json=body, headers=headers)
        error = refusal(answer, status)
        assert (error["code"], error["param"]) == (code, "X-Parent-Request-Id")
        assert answer.headers["x-should-retry"] == "false"
