"""Real replicas report a request with one trace from its HTTP call to its engine, and one line in the log."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from lifecycle.local.redis_process import free_port
from lifecycle.settings import Settings
from tests.cluster import Cluster, Process, running
from tests.collector import Collector, Span, collecting
from tests.sse import chat, post, text_of
from tests.waiting import wait_until

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE}-{PARENT}-01"
TRACED = "tests.engines:traced"


@pytest.fixture
async def collector(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Collector]:
    """Replicas started from now on send their spans here."""
    async with collecting() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
        yield collector


async def spans(collector: Collector, rid: str, count: int) -> list[Span]:
    """All of a request's trace, once there are so many."""

    def there() -> list[Span]:
        [*request] = collector.named("chat echo", lifecycle_request_id=rid)
        found = [span for span in collector.spans if request and span.trace_id == request[0].trace_id]
        return found if len(found) >= count else []

    return await wait_until(there, what=f"{count} spans of {rid}, of {collector.spans}")


async def stream(cluster: Cluster, prompt: str, rid: str, **headers: str) -> str:
    async with post(cluster.http, cluster.frontends[0].url, chat(prompt), X_Request_Id=rid, **headers) as response:
        return text_of(await response.read())


async def test_one_trace_from_the_call_through_the_queue_to_the_engine(
    settings: Settings, tmp_path: Path, collector: Collector
) -> None:
    async with running(settings, tmp_path, frontends=2, workers=0) as cluster:
        a, b = cluster.frontends
        await cluster.worker(engine=TRACED)
        handed_on = await stream(cluster, "hi", "whole", traceparent=TRACEPARENT)
        async with post(cluster.http, a.url, chat("wait"), X_Request_Id="cut") as response:
            await response.read_tokens(1)
            await cluster.http.post(f"{b.url}/v1/requests/cut/cancel?wait_ms=5000")
            await response.read()
        await cluster.get("/v1/requests", b)
        whole, cut = await spans(collector, "whole", 4), await spans(collector, "cut", 4)
        await wait_until(lambda: collector.named("POST /v1/requests/{rid}/cancel"))

    by_name = {span.name: span for span in whole}
    call, request = by_name["POST /v1/chat/completions"], by_name["chat echo"]
    queue, attempt = by_name["queue"], by_name["attempt"]
    assert {span.trace_id for span in whole} == {TRACE}
    assert [call.parent_id, request.parent_id, queue.parent_id, attempt.parent_id] == [
        PARENT,
        call.id,
        request.id,
        request.id,
    ]
    assert {call.service, request.service, queue.service} == {"lifecycle-frontend"}
    assert attempt.service == "lifecycle-worker"
    assert handed_on == f"00-{TRACE}-{attempt.id}-01"
    assert call.attributes["http.response.status_code"] == 200
    assert request.start_ns <= queue.start_ns <= queue.end_ns <= request.end_ns
    assert "first token" in attempt.events
    assert {span.attributes["lifecycle.status"] for span in (request, attempt)} == {"completed"}
    assert not [name for name in attempt.attributes if name.startswith("gen_ai.")], "usage would be added up twice"

    assert {span.trace_id for span in cut}.isdisjoint({TRACE})
    [attempt] = [span for span in cut if span.name == "attempt"]
    assert attempt.events["cancel"] == {"lifecycle.cancel.mode": "kill"}
    assert (attempt.attributes["error.type"], attempt.failed) == ("cancelled", False)
    assert not [span for span in collector.spans if span.name == "GET /v1/requests"], "looking on is not traced"
    assert not any("hi" in span.attributes.values() for span in collector.spans)


async def test_a_request_that_is_tried_again_has_two_attempts_in_its_trace(
    settings: Settings, tmp_path: Path, collector: Collector
) -> None:
    async with running(settings, tmp_path, workers=0) as cluster:
        silent = await cluster.worker(engine="tests.engines:silent", drain_timeout_secs=0)
        async with post(cluster.http, cluster.frontends[0].url, chat("0"), X_Request_Id="again") as response:
            await wait_until(lambda: _runs(cluster, "again"))
            await cluster.worker(engine=TRACED)
            await silent.terminate()
            await response.read()
        found = await spans(collector, "again", 6)
    [request] = [span for span in found if span.name == "chat echo"]
    attempts = [span for span in found if span.name == "attempt"]
    assert sorted(span.attributes["lifecycle.attempt"] for span in attempts) == [1, 2]
    assert {span.parent_id for span in attempts} == {request.id}
    assert len([span for span in found if span.name == "queue"]) == 2


async def test_the_span_of_a_request_follows_the_conventions_for_generative_ai(
    settings: Settings, tmp_path: Path, collector: Collector
) -> None:
    secret = "xyzzy-never-to-be-traced"
    async with running(settings, tmp_path, workers=0) as cluster:
        await cluster.worker("m", "tests.engines:reporting")
        await cluster.worker("raiser", "tests.engines:three_then_raise")
        url = cluster.frontends[0].url
        for rid, body in (("streamed", chat(secret, "m")), ("failed", chat(secret, "raiser", stream=False))):
            async with post(cluster.http, url, body, X_Request_Id=rid) as response:
                await response.read()
        body = {"model": "m", "prompt": secret}
        await cluster.http.post(f"{url}/v1/completions", json=body, headers={"X-Request-Id": "text"})
        names = {"streamed": "chat m", "failed": "chat raiser", "text": "text_completion m"}
        await wait_until(lambda: all(collector.named(name, lifecycle_request_id=rid) for rid, name in names.items()))
    spans = {span.attributes["lifecycle.request.id"]: span for span in collector.spans if span.kind == "CLIENT"}
    shown = {rid: {k: v for k, v in s.attributes.items() if k.startswith("gen_ai.")} for rid, s in spans.items()}
    usage = {
        "gen_ai.usage.input_tokens": 20,
        "gen_ai.usage.output_tokens": 10,
        "gen_ai.usage.cache_read.input_tokens": 16,
        "gen_ai.usage.reasoning.output_tokens": 7,
    }
    common = {"gen_ai.provider.name": "lifecycle", "gen_ai.request.model": "m", "gen_ai.response.model": "m"}
    assert 0 < shown["streamed"].pop("gen_ai.response.time_to_first_chunk") < 60
    assert shown["streamed"] == {
        **common,
        **usage,
        "gen_ai.operation.name": "chat",
        "gen_ai.request.stream": True,
        "gen_ai.response.id": "streamed",
        "gen_ai.response.finish_reasons": ["length"],
    }
    assert shown["text"] == {
        **common,
        **usage,
        "gen_ai.operation.name": "text_completion",
        "gen_ai.response.id": "text",
        "gen_ai.response.finish_reasons": ["length"],
    }
    assert shown["failed"]["gen_ai.response.finish_reasons"] == ["error"]
    failed = spans["failed"]
    assert (failed.failed, failed.attributes["error.type"]) == (True, "internal")
    assert secret not in repr(collector.spans)


async def _runs(cluster: Cluster, rid: str) -> bool:
    return bool((await cluster.record(rid))["status"] == "running")


async def test_without_a_collector_a_trace_is_handed_on_and_nothing_waits(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(settings, tmp_path, workers=0) as cluster:
        await cluster.worker(engine=TRACED)
        assert await stream(cluster, "hi", "with", traceparent=TRACEPARENT) == TRACEPARENT
        assert await stream(cluster, "hi", "without") == "none"
        assert await stream(cluster, "hi", "garbage", traceparent="00-ff-01 or so") == "none"

        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{free_port()}")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "60")  # how long the exporter would try
        lonely = await cluster.frontend()
        cluster.frontends.reverse()
        assert TRACE in await stream(cluster, "hi", "lonely", traceparent=TRACEPARENT)
        assert await lonely.terminate() == 0


def lines(process: Process) -> list[dict[str, Any]]:
    return [json.loads(line) for line in process.log.read_text().splitlines()]


async def test_each_request_has_one_line_in_the_log_that_says_how_it_went_and_not_what_it_said(
    settings: Settings, tmp_path: Path
) -> None:
    secret = "xyzzy-never-to-be-logged"
    async with running(settings, tmp_path, frontends=0, workers=0) as cluster:
        frontend = await cluster.frontend(log_level="debug")
        worker = await cluster.worker(log_level="debug", echo_tokens_per_sec=0)
        raiser = await cluster.worker("raiser", "tests.engines:three_then_raise", log_level="debug")
        url = frontend.url
        for rid, body in (("good", chat(secret)), ("bad", chat(secret, "raiser")), ("odd", chat(secret, "nobody"))):
            headers = {"X_Request_Id": rid, "traceparent": TRACEPARENT}
            async with post(cluster.http, url, body, **headers) as response:
                await response.read()
        async with post(cluster.http, url, chat(secret, echo_repeat=100_000), X_Request_Id="cut") as response:
            await response.read_tokens(1)
            await cluster.http.post(f"{url}/v1/requests/cut/cancel?wait_ms=5000&reason=enough")
            await response.read()
        ids = {replica["role"]: replica["id"] for replica in (await cluster.get("/v1/replicas"))["data"]}
        record = await cluster.record("good")

    ended = {line["request_id"]: line for line in lines(frontend) if line["message"] == "request ended"}
    assert len([line for line in lines(frontend) if line["logger"] == "lifecycle.request"]) == len(ended) == 3
    good, bad, cut = ended["good"], ended["bad"], ended["cut"]
    assert (good["status"], good["error_type"], good["output_tokens"]) == ("completed", "", 1)
    assert (good["frontend"], good["worker"], good["trace_id"]) == (ids["frontend"], record["worker"], TRACE)
    assert good["duration_secs"] >= good["first_token_secs"] >= good["queue_secs"] >= 0
    assert (bad["status"], bad["error_type"], bad["model"]) == ("failed", "internal", "raiser")
    assert (cut["status"], cut["cancel_reason"], cut["cancel_mode"]) == ("cancelled", "enough", "kill")
    assert "cancel_to_stop_secs" in cut
    assert any("RuntimeError at " in line["message"] for line in lines(raiser))
    for process in (frontend, worker, raiser):
        assert secret not in process.log.read_text()
