"""Cancelling at the edges: defaults, forms, a stop against a kill, a caller that hangs up, what has already ended."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.cluster import Cluster
from tests.conformance.calls import RECORD_FIELDS, cancel, ended, endless, expire, extra_worker, refusal, send, until
from tests.sse import chat, error_of, post
from tests.waiting import wait_until


@pytest.mark.parametrize("form", ["query", "body", "body over query"])
@pytest.mark.parametrize("method", ["POST", "DELETE"])
async def test_mode_reason_and_wait_go_in_the_query_or_the_body(
    cluster: Cluster, rid: str, method: str, form: str
) -> None:
    fields: dict[str, Any] = {"mode": "stop", "reason": "as asked", "wait_ms": 10_000}
    sent: dict[str, Any] = {
        "query": {"params": fields},
        "body": {"json": fields},
        "body over query": {"json": fields, "params": {"mode": "kill", "reason": "not this"}},
    }[form]
    path = f"/v1/requests/{rid}" + ("/cancel" if method == "POST" else "")
    async with post(cluster.http, cluster.frontends[0].url, endless(), X_Request_Id=rid) as stream:
        await stream.read_tokens(1)
        answer = await cluster.http.request(method, cluster.frontends[1].url + path, **sent)
        await stream.read()
    assert answer.status_code == 200
    record = answer.json()
    assert (record["cancel_mode"], record["cancel_reason"], record["status"]) == ("stop", "as asked", "completed")


@pytest.mark.parametrize("method", ["POST", "DELETE"])
async def test_by_default_a_cancel_kills_and_does_not_wait(cluster: Cluster, rid: str, method: str) -> None:
    path = f"/v1/requests/{rid}" + ("/cancel" if method == "POST" else "")
    async with post(cluster.http, cluster.frontends[0].url, endless(), X_Request_Id=rid) as stream:
        await stream.read_tokens(1)
        answer = await cluster.http.request(method, cluster.frontends[1].url + path)
        record = answer.json()
        assert record.keys() == RECORD_FIELDS
        assert (answer.status_code, record["status"]) in ((202, "running"), (200, "cancelled"))
        assert record["cancel_mode"] == "kill"
        assert record["cancel_requested_at"] is not None
        await stream.read()
    assert (await ended(cluster, rid))["status"] == "cancelled"


async def test_kill_overrules_stop_and_not_the_other_way_round(cluster: Cluster, rid: str) -> None:
    """The engine hears neither until the kill: its worker would let it go on for a minute after the stop."""
    async with extra_worker(cluster, "deaf", "tests.engines:silent", stop_grace_secs=60.0):
        async with post(cluster.http, cluster.frontends[0].url, chat("1", "deaf"), X_Request_Id=rid) as stream:
            await stream.read_tokens(1)
            stopping = await cancel(cluster, rid, wait_ms=0, mode="stop", reason="gently")
            assert (stopping.status_code, stopping.json()["cancel_mode"]) == (202, "stop")
            killed = await cancel(cluster, rid, mode="kill", reason="now")
            error = error_of(await stream.read())
        late = await cancel(cluster, rid, mode="stop", reason="too late")
    assert error is not None
    assert error["message"] == "now"
    for answer in (killed, late):
        record = answer.json()
        assert answer.status_code == 200
        assert (record["status"], record["cancel_mode"], record["cancel_reason"]) == ("cancelled", "kill", "now")


async def test_cancelling_what_has_completed_leaves_it_completed(cluster: Cluster, rid: str) -> None:
    await send(cluster, chat("x", stream=False), X_Request_Id=rid)
    before = await cluster.record(rid)
    for frontend in cluster.frontends:
        answer = await cancel(cluster, rid, frontend, wait_ms=0)
        assert (answer.status_code, answer.json()) == (200, before)
    assert before["status"] == "completed"


async def test_a_unary_caller_that_hangs_up_cancels(cluster: Cluster, rid: str) -> None:
    calling = asyncio.create_task(send(cluster, endless(stream=False), X_Request_Id=rid))
    await until(cluster, rid, "running")
    calling.cancel()
    await asyncio.wait([calling])
    record = await ended(cluster, rid)
    assert (record["status"], record["request_type"]) == ("cancelled", "unary")


async def test_a_unary_call_told_to_continue_goes_on_without_its_caller(cluster: Cluster, rid: str) -> None:
    body = chat("w " * 100, stream=False)
    calling = asyncio.create_task(send(cluster, body, X_Request_Id=rid, X_On_Disconnect="continue"))
    await until(cluster, rid, "running")
    calling.cancel()
    await asyncio.wait([calling])
    record = await ended(cluster, rid)
    assert (record["status"], record["output_tokens"], record["on_disconnect"]) == ("completed", 100, "continue")


async def test_a_failed_call_is_recorded_with_the_engines_words(cluster: Cluster, rid: str) -> None:
    url = cluster.frontends[0].url + "/v1/completions"
    body = {"model": "raiser", "prompt": "out of memory"}
    error = refusal(await cluster.http.post(url, json=body, headers={"X-Request-Id": rid}), 500)
    assert (error["type"], error["error_type"], error["request_id"]) == ("internal_server_error", "internal", rid)
    expected = {
        "endpoint": "completions",
        "request_type": "unary",
        "status": "failed",
        "error_type": "internal",
        "error_message": "out of memory",
        "output_tokens": 3,
        "finish_reason": None,
        "on_disconnect": "cancel",
        "cancel_requested_at": None,
        "cancel_reason": None,
        "cancel_mode": None,
    }
    assert expected.items() <= (await cluster.record(rid)).items()


async def test_an_expired_request_is_no_place_to_go_on_from(cluster: Cluster, rid: str) -> None:
    url = cluster.frontends[1].url + "/v1/requests"
    await send(cluster, chat("x", "brief", stream=False), X_Request_Id=rid)
    await expire(cluster, rid)

    async def expired() -> bool:
        return (await cluster.http.get(f"{url}/{rid}")).status_code == 404

    await wait_until(expired)
    assert refusal(await cluster.http.get(url, params={"after": rid}), 400)["param"] == "after"
    assert refusal(await cluster.http.get(url, params={"after": "not an id"}), 400)["param"] == "after"
    listed = (await cluster.http.get(url, params={"model": "brief"})).json()["data"]
    assert rid not in [record["id"] for record in listed]
