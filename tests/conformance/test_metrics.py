"""Metrics: every name and label of the contract, exact values, the same cluster on every replica."""

from __future__ import annotations

import shutil
import subprocess

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.cluster import Cluster
from tests.conformance.calls import cancel, endless, send
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
    "lifecycle_engines_stuck": {"model"},
    "lifecycle_output_tokens": {"model"},
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
    "lifecycle_cluster_requests": OUTCOME,
    "lifecycle_cluster_replicas": {"role"},
    "lifecycle_cluster_oldest_inflight_seconds": set(),
    "lifecycle_cluster_reaped_requests": {"role"},
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


async def test_the_counts_are_exact(cluster: Cluster, rid: str) -> None:
    names = {
        "started": ("lifecycle_requests_started_total", {}),
        "ok": ("lifecycle_requests_total", {"status": "success"}),
        "internal": ("lifecycle_requests_total", {"error_type": "internal"}),
        "cancelled": ("lifecycle_requests_total", {"error_type": "cancelled"}),
        "cancellations": ("lifecycle_cancellations_total", {}),
        "disconnects": ("lifecycle_client_disconnects_total", {}),
        "rejections": ("lifecycle_rejections_total", {}),
        "durations": ("lifecycle_request_duration_seconds_count", {}),
        "stops": ("lifecycle_cancel_to_stop_seconds_count", {}),
        "cluster_ok": ("lifecycle_cluster_requests_total", {"status": "success"}),
    }
    a = cluster.frontends[0]

    async def read() -> dict[str, float]:
        return {key: await cluster.metric(name, a, **labels) for key, (name, labels) in names.items()}

    async def settled() -> bool:  # what earlier tests ended may still be told
        return await cluster.metric("lifecycle_inflight_requests", a) == 0 and await read() == await read()

    await wait_until(settled)
    before = await read()
    await _mixed(cluster, rid)
    wanted = {
        "started": 4, "ok": 1, "internal": 1, "cancelled": 2, "cancellations": 2, "disconnects": 1, "rejections": 1,
        "durations": 4, "stops": 2, "cluster_ok": 1,
    }  # fmt: skip

    async def risen() -> bool:  # the cluster's snapshot may be a second old
        after = await read()
        return {key: after[key] - before[key] for key in names} == wanted

    await wait_until(risen)
    assert await cluster.metric("lifecycle_inflight_requests", a) == 0


async def test_the_cluster_is_the_same_on_every_replica(cluster: Cluster, rid: str) -> None:
    async with post(cluster.http, cluster.frontends[0].url, endless(), X_Request_Id=rid) as stream:
        await stream.read_tokens(1)

        async def seen_by_both() -> bool:
            values = [await cluster.metric("lifecycle_cluster_inflight_requests", f) for f in cluster.frontends]
            return values == [1, 1]

        await wait_until(seen_by_both)
        assert await cluster.metric("lifecycle_inflight_requests", cluster.frontends[1]) == 0
        assert await cluster.metric("lifecycle_cluster_replicas", role="frontend") == 2
        await cancel(cluster, rid)


async def test_an_unknown_model_makes_no_label_value(cluster: Cluster) -> None:
    await send(cluster, chat("x", "made-up-by-a-client"))
    assert "made-up-by-a-client" not in await _text(cluster)


async def test_promtool_finds_nothing(cluster: Cluster, rid: str) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not on PATH")
    await _mixed(cluster, rid)
    text = await _text(cluster)
    run = subprocess.run([promtool, "check", "metrics"], input=text, text=True, capture_output=True, check=False)
    assert (run.returncode, run.stdout + run.stderr) == (0, "")
