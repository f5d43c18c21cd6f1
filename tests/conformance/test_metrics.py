"""Metrics: every name and label of the contract, exact values, the same cluster on every replica."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.cluster import Cluster
from tests.conformance.calls import cancel, ended, endless, extra_worker, send, settles_to
from tests.metrics_doc import Metric, documented
from tests.sse import chat, post
from tests.waiting import wait_until

REQUEST = {"model", "endpoint", "request_type"}
OUTCOME = REQUEST | {"status", "error_type"}
PROCESS = {
    "lifecycle_requests_started": REQUEST,
    "lifecycle_requests": OUTCOME,
    "lifecycle_inflight_requests": REQUEST,
    "lifecycle_queued_requests": {"model"},
    "lifecycle_client_disconnects": {"model", "endpoint"},
    "lifecycle_cancellations": REQUEST,
    "lifecycle_rejections": {"model", "endpoint", "reason"},
    "lifecycle_refused_calls": {"status", "reason"},
    "lifecycle_engines_stuck": {"model"},
    "lifecycle_webhooks": {"result"},
    "lifecycle_output_tokens": {"model"},
    "lifecycle_output_events": {"model"},
    "lifecycle_input_tokens": {"model"},
    "lifecycle_orphan_tokens": {"model"},
    "lifecycle_preemptions": {"model"},
    "lifecycle_request_duration_seconds": {"model"},
    "lifecycle_time_to_first_token_seconds": {"model"},
    "lifecycle_inter_token_latency_seconds": {"model"},
    "lifecycle_queue_wait_seconds": {"model"},
    "lifecycle_cancel_to_stop_seconds": {"model"},
    "lifecycle_input_sequence_tokens": {"model"},
    "lifecycle_output_sequence_tokens": {"model"},
}
CLUSTER = {
    "lifecycle_cluster_inflight_requests": REQUEST,
    "lifecycle_cluster_queued_requests": {"model"},
    "lifecycle_cluster_queued_bytes": {"model"},
    "lifecycle_cluster_requests": OUTCOME,
    "lifecycle_cluster_replicas": {"role", "state"},
    "lifecycle_cluster_worker_slots": {"model", "state"},
    "lifecycle_cluster_oldest_inflight_seconds": set(),
    "lifecycle_cluster_reaped_requests": {"role"},
    "lifecycle_cluster_unreplicated_writes": {"operation"},
    "lifecycle_cluster_webhooks_waiting": set(),
    "lifecycle_cluster_reasserting_replicas": {"role"},
    "lifecycle_cluster_snapshot_age_seconds": set(),
}


async def _mixed(cluster: Cluster, rid: str) -> None:
    """One of each: success, failure, cancel, disconnect, refusal."""
    await send(cluster, chat("a b c", stream=False))
    await send(cluster, chat("boom", "raiser", stream=False))
    await send(cluster, chat("x", "nobody"))
    for name in (rid + "-cancel", rid + "-leave"):
        async with post(cluster.http, cluster.frontends[0].url, endless(), X_Request_Id=name) as stream:
            await stream.read_tokens(1)
            if name.endswith("cancel"):
                await cancel(cluster, name)

    async def idle() -> bool:
        return await cluster.inflight() == 0

    await wait_until(idle)


async def _read(cluster: Cluster, body: dict[str, Any], rid: str) -> None:
    async with post(cluster.http, cluster.frontends[0].url, body, X_Request_Id=rid) as stream:
        await stream.read()


async def _text(cluster: Cluster, frontend: int = 0) -> str:
    return (await cluster.http.get(cluster.frontends[frontend].url + "/metrics")).text


async def test_every_metric_is_there_with_its_labels(cluster: Cluster, rid: str) -> None:
    await _mixed(cluster, rid)
    families = {f.name: f for f in text_string_to_metric_families(await _text(cluster))}
    for name, labels in (PROCESS | CLUSTER).items():
        assert name in families, name
        assert families[name].documentation
        for sample in families[name].samples:
            assert set(sample.labels) - {"le"} == labels, sample
        assert families[name].samples, f"{name} has no series"
    assert set(families) <= set(PROCESS | CLUSTER)
    exported = {
        name + ("_total" if family.type == "counter" else ""): Metric(
            family.type, frozenset(label for sample in family.samples for label in sample.labels if label != "le")
        )
        for name, family in families.items()
    }
    assert exported == documented()


async def test_the_counts_are_exact(cluster: Cluster, new_id: Callable[[], str]) -> None:
    """A model nobody else asks for, so that its series begin at nothing."""
    stream, failure, cancelled, left, unary = ids = [new_id() for _ in range(5)]
    a, model = cluster.frontends[0], "metered"
    async with extra_worker(cluster, model):
        await _read(cluster, chat("a b c", model), stream)
        await _read(cluster, chat("no", model, echo_repeat=0), failure)
        for rid in (cancelled, left):
            async with post(cluster.http, a.url, endless(model), X_Request_Id=rid) as response:
                await response.read_tokens(1)
                if rid == cancelled:
                    await cancel(cluster, rid)
        body = {"model": model, "prompt": "a b"}
        await cluster.http.post(a.url + "/v1/completions", json=body, headers={"X-Request-Id": unary})
        await send(cluster, chat("again", model), X_Request_Id=unary)
        tokens = sum([(await ended(cluster, rid))["output_tokens"] for rid in ids])

    chats = {"endpoint": "chat_completions", "request_type": "stream"}
    completions = {"endpoint": "completions", "request_type": "unary"}
    by_outcome: list[tuple[dict[str, str], float]] = [
        ({**chats, "status": "success", "error_type": ""}, 1),
        ({**chats, "status": "error", "error_type": "internal"}, 1),
        ({**chats, "status": "error", "error_type": "cancelled"}, 2),
        ({**completions, "status": "success", "error_type": ""}, 1),
        ({}, 5),
    ]
    expected: list[tuple[str, dict[str, str], float]] = [
        ("requests_started_total", chats, 4),
        ("requests_started_total", completions, 1),
        *(("requests_total", *outcome) for outcome in by_outcome),
        *(("cluster_requests_total", *outcome) for outcome in by_outcome),
        ("client_disconnects_total", {"endpoint": "chat_completions"}, 1),
        ("client_disconnects_total", {}, 1),
        ("cancellations_total", chats, 2),
        ("cancellations_total", {}, 2),
        ("rejections_total", {"endpoint": "chat_completions", "reason": "request_id_in_use"}, 1),
        ("rejections_total", {}, 1),
        ("output_tokens_total", {}, tokens),
        ("inflight_requests", {}, 0),
        ("queued_requests", {}, 0),
        ("cluster_inflight_requests", {}, 0),
        ("cluster_queued_requests", {}, 0),
        ("request_duration_seconds_count", {}, 5),
        ("queue_wait_seconds_count", {}, 5),
        ("time_to_first_token_seconds_count", {}, 4),
        ("cancel_to_stop_seconds_count", {}, 2),
        ("output_sequence_tokens_count", {}, 5),
        ("output_sequence_tokens_sum", {}, tokens),
        ("input_sequence_tokens_count", {}, 5),
        ("input_sequence_tokens_sum", {}, 3 + 1 + 1 + 1 + 2),
    ]

    async def wrong() -> list[str]:
        seen = [await cluster.metric(f"lifecycle_{name}", a, model=model, **labels) for name, labels, _ in expected]
        pairs = zip(expected, seen, strict=True)
        return [f"{name}{labels} is {now:g}, not {want:g}" for (name, labels, want), now in pairs if now != want]

    await settles_to(list[str](), wrong)  # the cluster's snapshot may be a second old


async def test_what_came_after_the_client_had_gone_is_counted_by_the_owner(
    cluster: Cluster, new_id: Callable[[], str]
) -> None:
    a, b = cluster.frontends
    read, left = new_id(), new_id()
    async with extra_worker(cluster, "orphaned", echo_tokens_per_sec=100):
        await _read(cluster, chat("a b c", "orphaned"), read)
        body = chat("x", "orphaned", echo_repeat=200)
        async with post(cluster.http, a.url, body, X_Request_Id=left, X_On_Disconnect="continue") as response:
            await response.read_tokens(2)
        for rid in (read, left):
            await ended(cluster, rid)

    async def events() -> float:
        return await cluster.metric("lifecycle_output_events_total", a, model="orphaned")

    await settles_to(203.0, events)
    assert 0 < await cluster.metric("lifecycle_orphan_tokens_total", a, model="orphaned") <= 198
    assert await cluster.metric("lifecycle_orphan_tokens_total", b, model="orphaned") == 0


async def test_the_cluster_is_the_same_on_every_replica(cluster: Cluster, rid: str) -> None:
    async with post(cluster.http, cluster.frontends[0].url, endless(), X_Request_Id=rid) as stream:
        await stream.read_tokens(1)

        async def seen_by_both() -> bool:
            values = [await cluster.metric("lifecycle_cluster_inflight_requests", f) for f in cluster.frontends]
            return values == [1, 1]

        await wait_until(seen_by_both)
        assert await cluster.metric("lifecycle_inflight_requests", cluster.frontends[1]) == 0
        assert await cluster.metric("lifecycle_cluster_replicas", role="frontend") == 2
        for state, number in (("ready", 2), ("draining", 0)):
            assert await cluster.metric("lifecycle_cluster_replicas", role="frontend", state=state) == number
        await cancel(cluster, rid)


async def test_an_unknown_model_makes_no_label_value(cluster: Cluster) -> None:
    await send(cluster, chat("x", "made-up-by-a-client"))
    assert "made-up-by-a-client" not in await _text(cluster)


async def test_the_exposition_follows_the_naming_rules(cluster: Cluster, rid: str) -> None:
    await _mixed(cluster, rid)
    text = await _text(cluster)
    for family in text_string_to_metric_families(text):
        assert re.fullmatch(r"lifecycle_[a-z][a-z_]*[a-z]", family.name)
        for keyword in ("HELP", "TYPE"):
            name = family.name + ("_total" if family.type == "counter" else "")
            assert len(re.findall(rf"^# {keyword} {name} \S", text, re.MULTILINE)) == 1
        suffixes = {"counter": {"_total"}, "gauge": {""}, "histogram": {"_bucket", "_sum", "_count"}}[family.type]
        assert {sample.name.removeprefix(family.name) for sample in family.samples} <= suffixes
        assert not re.search(r"_(total|count|sum|bucket|gauge|counter|histogram|milliseconds|ms)$", family.name)
    series = [line.rpartition(" ")[0] for line in text.splitlines() if not line.startswith("#")]
    assert len(series) == len(set(series))


async def test_promtool_finds_nothing(cluster: Cluster, rid: str) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not on PATH")
    await _mixed(cluster, rid)
    text = await _text(cluster)
    run = subprocess.run([promtool, "check", "metrics"], input=text, text=True, capture_output=True, check=False)
    assert (run.returncode, run.stdout + run.stderr) == (0, "")
