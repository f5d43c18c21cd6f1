"""The JavaScript client in Node.js, against two frontends: streams that break, cancels, aborts, errors."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from lifecycle.settings import Settings
from tests.chaos.proxy import FaultProxy
from tests.clients.js.package import Package, execute
from tests.clients.js.pages import PAGES, blocks_of
from tests.clients.js.reading import Reading, call_in_node, in_node
from tests.cluster import Cluster, running
from tests.conftest import MakeSettings
from tests.shared_cluster import borrowed, shared_cluster
from tests.waiting import wait_until

COUNT = 400
WHOLE = "".join(f"{number} " for number in range(COUNT))
IDS = [f"1-{number}" for number in range(1, COUNT + 1)]
ENGINE_WITH_FIGURES = """
async def generate(request, context):
    yield "a"
    yield {"choices": [], "usage": {"prompt_tokens": 1}, "timings": {"so_far_ms": 1}}
    yield "b"
    yield {"choices": [{"index": 0, "delta": {"content": "c"}, "finish_reason": "length"}]}
    yield {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 3}, "timings": {"all_ms": 2}}
"""

pytestmark = [pytest.mark.slow, pytest.mark.clients]


@pytest.fixture(scope="module")
def shared(redis_url: str, package: Package, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    settings = Settings(
        redis_url=redis_url,
        namespace=f"js-{secrets.token_hex(4)}",
        heartbeat_secs=0.5,
        lease_secs=6.0,
        sweep_secs=0.25,
        headers_after_secs=5.0,
    )
    with shared_cluster(_with_the_engines(settings, tmp_path_factory.mktemp("js"))) as cluster:
        yield cluster


@asynccontextmanager
async def _with_the_engines(settings: Settings, directory: Path) -> AsyncIterator[Cluster]:
    (directory / "figures.py").write_text(ENGINE_WITH_FIGURES)
    async with running(settings, directory, frontends=2) as cluster:
        await asyncio.gather(
            cluster.worker("paced", "tests.engines:paced"),
            cluster.worker("parts", "tests.engines:in_two_parts"),
            cluster.worker("raising", "tests.engines:three_then_raise"),
            cluster.worker("figures", "figures:generate"),
            cluster.worker("silent", "tests.engines:silent"),
        )
        yield cluster


@pytest.fixture
async def cluster(shared: Cluster) -> AsyncIterator[Cluster]:
    async with borrowed(shared) as own:
        yield own


def urls_of(cluster: Cluster) -> list[str]:
    return [frontend.url for frontend in cluster.frontends]


def chat(model: str, content: str, **fields: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": content}], **fields}


def assert_whole(reading: Reading) -> None:
    """Every event has come once, in order, and the stream has ended well."""
    assert reading.error is None
    assert reading.ids == IDS
    assert reading.text == WHOLE
    assert reading.finish_reasons == ["stop"]


# connections that break


async def test_a_stream_goes_on_when_its_frontend_is_killed(
    make_settings: MakeSettings, package: Package, tmp_path: Path
) -> None:
    async with running(make_settings(lease_secs=4.0), tmp_path, frontends=2, workers=0) as cluster:
        await cluster.worker("parts", "tests.engines:in_two_parts")
        body = chat("parts", f"{COUNT} {tmp_path / 'gate'}")
        async with in_node(package, urls_of(cluster), "stream", body) as program:
            await program.has(COUNT // 2)
            record = await cluster.record(program.request_id)
            await cluster.frontends.pop(0).kill()
            (tmp_path / "gate").touch()
            await program.ended()
        assert_whole(program)
        ended = await cluster.record(program.request_id)
        assert (ended["status"], ended["attempt"], ended["frontend"]) == ("completed", 1, record["frontend"])


async def test_a_stream_goes_on_with_the_next_attempt(
    make_settings: MakeSettings, package: Package, tmp_path: Path
) -> None:
    """The worker is killed, and the frontend too: the numbers go on, and the attempt says where."""
    async with running(make_settings(lease_secs=2.0), tmp_path, frontends=2, workers=0) as cluster:
        await asyncio.gather(*(cluster.worker("resumed", "tests.engines:resumed") for _ in range(2)))
        async with in_node(package, urls_of(cluster), "stream", chat("resumed", f"{COUNT} 0.01")) as program:
            await program.has(COUNT // 4)
            running_on = (await cluster.record(program.request_id))["worker"]
            replicas = (await cluster.get("/v1/replicas"))["data"]
            pid = next(replica["pid"] for replica in replicas if replica["id"] == running_on)
            worker = next(worker for worker in cluster.workers if worker.pid == pid)
            await worker.kill()
            cluster.workers.remove(worker)
            await cluster.frontends.pop(0).kill()
            await program.ended()
        assert (program.error, program.text) == (None, WHOLE)
        ids = [parse_id(each) for each in program.ids]
        assert [number for _, number in ids] == list(range(1, COUNT + 1))
        assert {attempt for attempt, _ in ids} == {1, 2}
        base = max(number for attempt, number in ids if attempt == 1)
        for position in (f"1-{base}", f"2-{base}"):
            rest = await call_in_node(package, urls_of(cluster), "resume", program.request_id, {"after": position})
            assert (rest.error, rest.ids) == (None, program.ids[base:])


def parse_id(text: str) -> tuple[int, int]:
    attempt, number = text.split("-")
    return int(attempt), int(number)


@pytest.mark.parametrize("options", [{}, {"onDisconnect": "continue"}])
async def test_a_stream_goes_on_when_its_frontend_drains(
    make_settings: MakeSettings, package: Package, tmp_path: Path, options: dict[str, str]
) -> None:
    settings = make_settings(drain_timeout_secs=0.5, lease_secs=4.0)
    async with running(settings, tmp_path, frontends=2, workers=0) as cluster:
        await cluster.worker("parts", "tests.engines:in_two_parts")
        body = chat("parts", f"{COUNT} {tmp_path / 'gate'}")
        async with in_node(package, urls_of(cluster), "stream", body, options) as program:
            await program.has(COUNT // 2)
            await cluster.frontends.pop(0).terminate()
            (tmp_path / "gate").touch()
            await program.ended()
        assert_whole(program)


async def test_a_stream_goes_on_after_each_of_many_resets(cluster: Cluster, package: Package) -> None:
    """Each connection, also one that has just been opened, is reset by RST; both replicas are behind a proxy."""
    async with proxied(cluster) as (proxies, urls):
        async with in_node(package, urls, "stream", chat("paced", f"{COUNT} 0.004")) as program:
            for count in range(20, COUNT, 20):
                await program.has(count)
                for proxy in proxies:
                    proxy.reset()
            await program.ended()
        assert_whole(program)
        assert (await cluster.record(program.request_id))["status"] == "completed"


@asynccontextmanager
async def proxied(cluster: Cluster) -> AsyncIterator[tuple[list[FaultProxy], list[str]]]:
    """Put a proxy in front of each frontend."""
    proxies = [FaultProxy(f"redis://{urlsplit(url).netloc}") for url in urls_of(cluster)]
    async with proxies[0], proxies[1]:
        yield proxies, [f"http://127.0.0.1:{proxy.port}" for proxy in proxies]


async def test_a_stream_goes_on_when_its_replica_falls_silent(
    cluster: Cluster, package: Package, tmp_path: Path
) -> None:
    async with proxied(cluster) as (proxies, urls):
        body, options = chat("parts", f"{COUNT} {tmp_path / 'gate'}"), {"silenceTimeoutMs": 1000}
        async with in_node(package, urls, "stream", body, options) as program:
            await program.has(COUNT // 2)
            proxies[0].blackhole()
            (tmp_path / "gate").touch()
            await program.ended()
            proxies[0].restore()
        assert_whole(program)


async def test_without_any_replica_the_error_says_where_to_go_on(cluster: Cluster, package: Package) -> None:
    async with proxied(cluster) as (proxies, urls):
        body, options = chat("paced", f"{COUNT} 0.004"), {"onDisconnect": "continue"}
        limits = {"maxRetries": 4, "baseDelayMs": 5}
        async with in_node(package, urls, "stream", body, options, client=limits) as program:
            await program.has(50)
            for proxy in proxies:
                proxy.cut()
            await program.ended()
    assert program.error is not None
    assert program.error["name"] == "ConnectionError"
    assert (program.error["requestId"], program.error["lastEventId"]) == (program.request_id, program.ids[-1])
    rest = await call_in_node(
        package, urls_of(cluster), "resume", program.request_id, {"after": program.error["lastEventId"]}
    )
    assert program.ids + rest.ids == IDS
    assert program.text + rest.text == WHOLE


# cancels and aborts


@pytest.mark.parametrize("mode", ["kill", "stop"])
async def test_a_stream_is_cancelled_from_the_other_replica(
    cluster: Cluster, package: Package, tmp_path: Path, mode: str
) -> None:
    here, there = urls_of(cluster)
    async with in_node(package, [here], "stream", chat("parts", f"{COUNT} {tmp_path / 'gate'}")) as program:
        await program.has(COUNT // 2)
        options = {"mode": mode, "reason": "enough", "waitMs": 10_000}
        cancelled = await call_in_node(package, [there], "cancel", program.request_id, options)
        await program.ended()
    assert program.text == "".join(f"{number} " for number in range(COUNT // 2))
    assert cancelled.value["cancel_mode"] == mode
    if mode == "stop":
        assert (cancelled.value["status"], program.error, program.finish_reasons) == ("completed", None, ["stop"])
    else:
        assert cancelled.value["status"] == "cancelled"
        assert program.error == {
            "name": "RequestFailedError",
            "message": "enough",
            "status": 499,
            "code": 499,
            "type": "request_cancelled",
            "param": None,
            "errorType": "cancelled",
            "requestId": program.request_id,
            "lastEventId": f"1-{COUNT // 2}",
        }


@pytest.mark.parametrize("leaving", ["abortAfter", "leaveAfter"])
async def test_leaving_a_stream_cancels_its_request_at_once(cluster: Cluster, package: Package, leaving: str) -> None:
    spec = {leaving: 5}
    program = await call_in_node(package, urls_of(cluster), "stream", chat("paced", f"{COUNT} 0.05"), {}, **spec)
    record = await cluster.record(program.request_id)
    assert record["cancel_requested_at"] is not None
    assert record["cancelled_by"] == "anonymous"
    assert (program.error or {}).get("message") == ("enough" if leaving == "abortAfter" else None)
    assert len(program.ids) == 5


async def test_an_abort_before_the_first_event_cancels_too(cluster: Cluster, package: Package) -> None:
    rid = f"early-{secrets.token_hex(4)}"
    options = {"requestId": rid}
    program = await call_in_node(package, urls_of(cluster), "stream", chat("silent", "0"), options, abortAfterMs=500)
    assert (program.events, (program.error or {}).get("message")) == ([], "enough")
    assert (await cluster.record(rid))["cancelled_by"] == "anonymous"


async def test_a_stream_that_was_only_left_is_read_to_its_end_later(cluster: Cluster, package: Package) -> None:
    options = {"onAbort": "leave", "onDisconnect": "continue", "requestId": f"kept-{secrets.token_hex(4)}"}
    body = chat("paced", f"{COUNT} 0.002")
    first = await call_in_node(package, urls_of(cluster), "stream", body, options, leaveAfter=30)
    position = {"after": first.lines[-1]["lastEventId"]}
    rest = await call_in_node(package, urls_of(cluster)[::-1], "resume", options["requestId"], position)
    assert first.ids + rest.ids == IDS
    assert first.text + rest.text == WHOLE
    whole = await call_in_node(package, urls_of(cluster), "resume", options["requestId"])
    assert_whole(whole)
    # Behind the last event there is still how the request has ended.
    ended = await call_in_node(package, urls_of(cluster), "resume", options["requestId"], {"after": IDS[-1]})
    assert (ended.ids, ended.finish_reasons, ended.error) == ([], ["stop"], None)


# what an engine and its upstream send


async def test_numbers_without_an_event_of_their_own_are_no_gap(cluster: Cluster, package: Package) -> None:
    for fields in ({}, {"stream_options": {"include_usage": True}}):
        whole = await call_in_node(package, urls_of(cluster), "stream", chat("figures", "", **fields))
        assert whole.error is None
        assert (whole.text, whole.finish_reasons) == ("abc", ["length"])
        for after in ["1-1", "1-3", "1-4", "1-5"]:
            rest = await call_in_node(package, urls_of(cluster), "resume", whole.request_id, {"after": after})
            assert rest.error is None
            assert "abc".endswith(rest.text)


async def test_other_endpoints_stream_their_own_events(cluster: Cluster, package: Package) -> None:
    message = {"model": "echo", "max_tokens": 50, "messages": [{"role": "user", "content": "one two three"}]}
    for body, path, first, last in [
        (message, "/v1/messages", "message_start", "message_stop"),
        ({"model": "echo", "input": "one two three"}, "/v1/responses", "response.created", "response.completed"),
    ]:
        read = await call_in_node(package, urls_of(cluster), "stream", body, {"path": path})
        assert read.error is None
        assert (read.events[0]["event"], read.events[-1]["event"]) == (first, last)
        again = await call_in_node(package, urls_of(cluster)[::-1], "resume", read.request_id)
        assert [event["data"]["type"] for event in again.events] == [event["data"]["type"] for event in read.events]
        half = {"after": read.ids[len(read.ids) // 2]}
        rest = await call_in_node(package, urls_of(cluster), "resume", read.request_id, half)
        assert rest.events == again.events[-len(rest.events) :]
        assert rest.error is None


# errors


async def test_errors_have_the_fields_of_the_api(cluster: Cluster, package: Package) -> None:
    failed = await call_in_node(package, urls_of(cluster), "stream", chat("raising", "the engine's words"))
    assert failed.text == "one two three"
    assert failed.error == {
        "name": "RequestFailedError",
        "message": "the engine's words",
        "status": 500,
        "code": 500,
        "type": "internal_server_error",
        "param": None,
        "errorType": "internal",
        "requestId": failed.request_id,
        "lastEventId": "1-3",
    }
    after = {"after": "1-3"}
    again = await call_in_node(package, urls_of(cluster), "resume", failed.request_id, after)
    assert again.error == failed.error

    unknown = await call_in_node(package, urls_of(cluster), "stream", chat("nobody's", "hi"))
    assert unknown.error is not None
    expected = ("ResponseError", 404, "model_not_found", "not_found_error", "model")
    assert tuple(unknown.error[name] for name in ("name", "status", "code", "type", "param")) == expected

    for method, args in (("get", []), ("cancel", [{"mode": "stop"}]), ("resume", [])):
        missing = await call_in_node(package, urls_of(cluster), method, "not-there", *args)
        assert missing.error is not None
        assert (missing.error["name"], missing.error["code"]) == ("ResponseError", "request_not_found")

    invalid = await call_in_node(package, urls_of(cluster), "stream", {"model": "echo", "messages": []})
    assert invalid.error is not None
    assert (invalid.error["status"], invalid.error["param"]) == (400, "messages")


# the cluster


async def test_the_cluster_is_the_same_at_every_replica(cluster: Cluster, package: Package, tmp_path: Path) -> None:
    here, there = urls_of(cluster)
    async with in_node(package, [here], "stream", chat("parts", f"{COUNT} {tmp_path / 'gate'}")) as program:
        await program.has(COUNT // 2)
        inflight = (await call_in_node(package, [there], "inflight", {"model": "parts"})).value
        assert (inflight["object"], inflight["total"], inflight["running"]) == ("inflight", 1, 1)
        listed = await call_in_node(package, [there], "requests", {"status": "running", "model": "parts"})
        record = (await call_in_node(package, [there], "get", program.request_id)).value
        assert [event["id"] for event in listed.events] == [record["id"]] == [program.request_id]
        assert (record["status"], record["endpoint"]) == ("running", "chat_completions")
        (tmp_path / "gate").touch()
        await program.ended()
    assert_whole(program)
    replicas = (await call_in_node(package, [there], "replicas")).value
    assert sorted(replica["role"] for replica in replicas) == ["frontend"] * 2 + ["worker"] * 6
    for _ in range(2):  # with the first one more than a page
        await call_in_node(package, [here], "stream", chat("parts", f"{COUNT} {tmp_path / 'gate'}"))
    all_of_them = await call_in_node(package, [here], "requests", {"pageSize": 2, "model": "parts"})
    ids = [event["id"] for event in all_of_them.events]
    assert len(ids) == len(set(ids)) > 2

    async def listed_ids() -> bool:
        return [record["id"] for record in (await cluster.get("/v1/requests?model=parts"))["data"]] == ids

    await wait_until(listed_ids, what="the same list")


# the pages


@pytest.mark.parametrize(
    ("page", "number"), [(page, number) for page in PAGES for number in range(len(blocks_of(page)))], ids=str
)
async def test_the_programs_on_the_pages_work(cluster: Cluster, package: Package, page: Path, number: int) -> None:
    language, code = blocks_of(page)[number]
    if language == "ts":
        assert "document." in code, "only what needs a page does not run here"
        return
    for documented, url in zip(("localhost:8000", "localhost:8001"), urls_of(cluster), strict=True):
        code = code.replace(documented, url.removeprefix("http://"))
    (package.folder / "block.mjs").write_text(code)
    printed = await asyncio.to_thread(execute, ["node", "block.mjs"], package.folder)
    assert printed.strip()
    if "cancelled enough" in code:
        assert printed == "cancelled enough\n"
