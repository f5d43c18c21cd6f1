"""Webhooks from real frontends to a real receiver."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from openai import AsyncOpenAI

from lifecycle.settings import Settings
from lifecycle.store.new_request import AdmissionRequest
from lifecycle.store.transitions import Store
from lifecycle.telemetry.metrics import Metrics
from lifecycle.tracking.tracker import Tracker
from lifecycle.types import CancelMode, Endpoint, Labels, Limits, OnDisconnect, Storage
from lifecycle.webhooks import deliverer
from tests.admitting import admit
from tests.cluster import ROOT, Cluster, Process, running
from tests.conftest import MakeSettings
from tests.receiver import SECRET, Receiver, receiving
from tests.waiting import wait_until

ON: dict[str, Any] = {
    "webhook_hosts": "127.0.0.1, localhost",
    "webhook_secret": SECRET,
    "webhook_private_addresses": True,
    "webhook_retry_secs": 0.1,
    "webhook_timeout_secs": 2.0,
    "echo_tokens_per_sec": 0.0,
    "lease_secs": 4.0,
}


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as receiver:
        yield receiver


async def ask(
    cluster: Cluster, rid: str, url: str, frontend: Process | None = None, status: int = 200, **headers: str
) -> dict[str, Any]:
    """A unary call that names a receiver; its body."""
    answer = await cluster.http.post(
        (frontend or cluster.frontends[0]).url + "/v1/chat/completions",
        json={"model": "echo", "messages": [{"role": "user", "content": "one two"}]},
        headers={"X-Request-Id": rid, "X-Webhook-Url": url, **headers},
    )
    assert answer.status_code == status, answer.text
    body: dict[str, Any] = answer.json()
    return body


async def delivered(store: Store) -> None:
    """Wait until nothing is left in the outbox."""

    async def empty() -> bool:
        return not await store.command("ZCARD", store.keys.prefixes[0] + "webhooks")

    await wait_until(empty, what="an empty outbox")


async def test_a_call_gets_one_signed_event_at_its_end(
    make_settings: MakeSettings, store: Store, receiver: Receiver, tmp_path: Path
) -> None:
    settings = make_settings(**ON)
    async with running(settings, tmp_path, frontends=2) as cluster:
        await ask(cluster, "r1", receiver.url + "?key=hidden-key")
        (got,) = await receiver.got()
        record = await cluster.record("r1")
        event = got.verified()
        assert got.path == "/hook?key=hidden-key"
        assert got.headers["content-type"] == "application/json"
        assert got.headers["host"] == f"127.0.0.1:{receiver.port}"
        assert (event["type"], event["object"], event["id"]) == ("request.completed", "event", got.event_id)
        assert event["created_at"] == int(record["finished_at"])
        assert event["data"] == {
            "id": "r1",
            **{name: record[name] for name in ("endpoint", "model", "status", "error_type", "finish_reason")},
            **{name: record[name] for name in ("created_at", "finished_at")},
        }
        await delivered(store)

        async def counted() -> bool:
            return await cluster.metric("lifecycle_webhooks_total", result="delivered") == 1

        await wait_until(counted)
        assert await cluster.metric("lifecycle_cluster_webhooks_waiting") == 0
        assert len(receiver.calls) == 1
        logs = "".join(process.log.read_text() for process in cluster.frontends)
        assert "hidden-key" not in logs + str(record)
        assert SECRET not in logs


async def test_the_code_of_the_documentation_verifies_an_event(
    make_settings: MakeSettings, receiver: Receiver, tmp_path: Path
) -> None:
    page = (ROOT / "docs" / "webhooks.md").read_text()
    names: dict[str, Any] = {}
    exec(page.partition("```python\n")[2].partition("```")[0], names)
    async with running(make_settings(**ON), tmp_path) as cluster:
        await ask(cluster, "r1", receiver.url)
        (got,) = await receiver.got()
    assert names["receive"](SECRET, got.headers, got.body)["data"]["id"] == "r1"
    assert names["receive"](SECRET, got.headers, got.body) is None  # a repetition


async def test_a_receiver_that_fails_gets_the_same_event_again(
    make_settings: MakeSettings, store: Store, receiver: Receiver, tmp_path: Path
) -> None:
    receiver.statuses = [500, 503]
    async with running(make_settings(**ON), tmp_path, frontends=2) as cluster:
        await ask(cluster, "r1", receiver.url)
        calls = await receiver.got(3)
        assert len({(got.event_id, got.body) for got in calls}) == 1
        for got in calls:
            got.verified()
        await delivered(store)
        assert len(receiver.calls) == 3


async def test_a_receiver_that_never_accepts_is_given_up(
    make_settings: MakeSettings, store: Store, receiver: Receiver, tmp_path: Path
) -> None:
    receiver.statuses = [500] * 10
    async with running(make_settings(**ON, webhook_attempts=3), tmp_path) as cluster:
        await ask(cluster, "r1", receiver.url)
        await receiver.got(3)
        await delivered(store)

        async def counted() -> bool:
            return await cluster.metric("lifecycle_webhooks_total", result="given_up") == 1

        await wait_until(counted)
        assert await cluster.metric("lifecycle_webhooks_total", result="failed") == 2
        assert len(receiver.calls) == 3
        log = cluster.frontends[0].log.read_text()
        assert "is given up after 3 attempts: status 500" in log


async def test_a_receiver_that_is_gone_is_told_no_more(
    make_settings: MakeSettings, store: Store, receiver: Receiver, tmp_path: Path
) -> None:
    receiver.statuses = [410]
    async with running(make_settings(**ON), tmp_path) as cluster:
        await ask(cluster, "r1", receiver.url)
        await receiver.got()
        await delivered(store)


async def test_a_redirect_is_not_followed(
    make_settings: MakeSettings, store: Store, receiver: Receiver, tmp_path: Path
) -> None:
    receiver.statuses, receiver.head = [302, 307], f"location: {receiver.url}/elsewhere\r\n"
    async with running(make_settings(**ON, webhook_attempts=2), tmp_path) as cluster:
        await ask(cluster, "r1", receiver.url)
        await delivered(store)
    assert [got.path for got in receiver.calls] == ["/hook", "/hook"]


async def test_an_event_waits_for_a_frontend(
    make_settings: MakeSettings, store: Store, receiver: Receiver, tmp_path: Path
) -> None:
    await admit(store, "r1", webhook_url=receiver.url)
    await store.cancel("r1", CancelMode.KILL, "test")
    async with running(make_settings(**ON), tmp_path, workers=0):
        (got,) = await receiver.got()
        assert got.verified()["type"] == "request.cancelled"
        await delivered(store)
    await store.command("HDEL", store.keys.prefixes[0] + "ticks", "f0")  # which has no lease


async def test_a_slow_receiver_holds_up_no_other(
    make_settings: MakeSettings, store: Store, receiver: Receiver, tmp_path: Path
) -> None:
    number = deliverer.ORIGIN_LIMIT + 4
    async with receiving() as slow, running(make_settings(**{**ON, "webhook_timeout_secs": 15.0}), tmp_path) as cluster:
        slow.holds = True
        await asyncio.gather(*(ask(cluster, f"slow-{n}", slow.url) for n in range(number)))
        await slow.got(deliverer.ORIGIN_LIMIT)
        await ask(cluster, "quick", receiver.url)
        await receiver.got(timeout_secs=10.0)
        assert slow.most_held == deliverer.ORIGIN_LIMIT
        slow.release()
        await slow.got(number)
        await delivered(store)
        assert len(slow.calls) == number


async def test_the_header_is_off_by_default(make_settings: MakeSettings, receiver: Receiver, tmp_path: Path) -> None:
    async with running(make_settings(), tmp_path) as cluster:
        error = (await ask(cluster, "r1", receiver.url, status=400))["error"]
        assert error["param"] == "X-Webhook-Url"
        assert "LIFECYCLE_WEBHOOK_HOSTS" in error["message"]
        assert (await cluster.http.get(cluster.frontends[0].url + "/v1/requests/r1")).status_code == 404


async def test_only_listed_hosts_and_public_addresses_may_be_named(
    make_settings: MakeSettings, receiver: Receiver, tmp_path: Path
) -> None:
    chosen = {**ON, "webhook_private_addresses": False, "webhook_hosts": "localhost, hooks.example"}
    async with running(make_settings(**chosen), tmp_path) as cluster:
        for url in (
            receiver.url,
            receiver.url.replace("http:", "https:"),
            "https://other.example/",
            "https://user:word@hooks.example/",
            "https://169.254.169.254/latest",
        ):
            error = (await ask(cluster, "r1", url, status=400))["error"]
            assert error["param"] == "X-Webhook-Url"
            assert url not in error["message"]
        await ask(cluster, "r2", f"https://localhost:{receiver.port}/")

        async def failed() -> bool:
            return "an address that is not public" in cluster.frontends[0].log.read_text()

        await wait_until(failed)
    assert receiver.calls == []


async def test_a_start_without_a_secret_says_what_is_missing(make_settings: MakeSettings, tmp_path: Path) -> None:
    async with running(make_settings(), tmp_path, workers=0) as cluster:
        process = await cluster._start("frontend", ["--port", "0"], {**ON, "webhook_secret": ""})
        assert await process.process.wait() == 2
        (line,) = process.log.read_text().splitlines()
        assert "LIFECYCLE_WEBHOOK_SECRET" in line


# Responses in the background, through the library


@asynccontextmanager
async def _opened(settings: Settings) -> AsyncIterator[Tracker]:
    async with Tracker.open(settings, Metrics(), "http://test") as tracker:
        yield tracker


def _request(rid: str, **fields: Any) -> AdmissionRequest:
    labels = Labels("m", Endpoint.RESPONSES, "unary")
    return AdmissionRequest(rid, labels, b"{}", OnDisconnect.CONTINUE, 0.0, Limits(), **fields)


async def test_each_background_response_is_reported_to_the_url_of_the_settings(
    make_settings: MakeSettings, store: Store, receiver: Receiver
) -> None:
    settings = make_settings(**{**ON, "webhook_hosts": "", "webhook_url": receiver.url})
    async with _opened(settings) as tracker:
        for rid, storage in (("resp_1", Storage.BACKGROUND), ("resp_2", Storage.KEPT)):
            admitted = await tracker.admit(_request(rid, storage=storage))
            await tracker.cancel(rid, CancelMode.KILL, "test")
            admitted.connection.disarm()
            admitted.connection.close()
        (got,) = await receiver.got()
        event = got.verified()
        assert (event["type"], event["data"]) == ("response.cancelled", {"id": "resp_1"})
        await delivered(store)
    assert len(receiver.calls) == 1


async def test_the_sdk_is_told_of_each_end_of_a_background_response(
    make_settings: MakeSettings, store: Store, receiver: Receiver, tmp_path: Path
) -> None:
    settings = make_settings(**{**ON, "webhook_hosts": "", "webhook_url": receiver.url})
    async with running(settings, tmp_path, frontends=2) as cluster:
        a, b = (
            AsyncOpenAI(base_url=f"{frontend.url}/v1", api_key="none", webhook_secret=SECRET)
            for frontend in cluster.frontends
        )
        async with a, b:
            for number, limit, kind in ((1, None, "response.completed"), (2, 1, "response.incomplete")):
                response = await a.responses.create(
                    model="echo", input="one two three", background=True, max_output_tokens=limit
                )
                got = (await receiver.got(number))[-1]
                event = b.webhooks.unwrap(got.body, got.headers)
                assert (event.type, getattr(event.data, "id", "")) == (kind, response.id)
                assert (await b.responses.retrieve(response.id)).status == kind.removeprefix("response.")
            stored = await a.responses.create(model="echo", input="one")
            await delivered(store)
    assert stored.id not in {got.verified()["data"]["id"] for got in receiver.calls}
    assert len(receiver.calls) == 2
