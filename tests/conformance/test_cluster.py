"""The API reports the replicas and counts of the cluster."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.cluster import Cluster
from tests.conformance.calls import cancel, ended, endless, expire, journaled, refusal, until
from tests.sse import chat, post
from tests.waiting import wait_until

NewId = Callable[[], str]


async def test_inflight_counts_by_labels_and_by_frontend(cluster: Cluster, new_id: NewId, tmp_path: Path) -> None:
    a, b = cluster.frontends
    ids = [new_id() for _ in range(3)]
    async with (
        post(cluster.http, a.url, endless(), X_Request_Id=ids[0]) as first,
        post(cluster.http, a.url, journaled(tmp_path / "j"), X_Request_Id=ids[1]) as second,
    ):
        await first.read_tokens(1)
        await second.read_tokens(1)
        async with post(cluster.http, b.url, journaled(tmp_path / "j"), X_Request_Id=ids[2]):
            await until(cluster, ids[2], "queued")
            counts = [await cluster.get("/v1/inflight", frontend) for frontend in cluster.frontends]
            for seen in counts:
                assert (seen["object"], seen["total"], seen["queued"], seen["running"]) == ("inflight", 3, 1, 2)
                groups = {(g["model"], g["endpoint"], g["request_type"]): g for g in seen["groups"]}
                assert groups["single", "chat_completions", "stream"]["inflight"] == 2
                assert groups["single", "chat_completions", "stream"]["queued"] == 1
                assert groups["echo", "chat_completions", "stream"]["running"] == 1
                assert sorted(f["inflight"] for f in seen["frontends"]) == [1, 2]
                assert all(f["lease_expires_in_ms"] > 0 for f in seen["frontends"])
                assert seen["as_of"] > 1e9
            assert (await cluster.get("/v1/inflight?model=single"))["total"] == 2
            assert (await cluster.get("/v1/inflight?model=nobody"))["total"] == 0
            for name in ids[::-1]:
                await cancel(cluster, name)


async def test_replicas(cluster: Cluster) -> None:
    replicas = (await cluster.get("/v1/replicas"))["data"]
    assert sorted(r["role"] for r in replicas) == ["frontend"] * 2 + ["worker"] * 6
    for replica in replicas:
        assert set(replica) == {
            "id",
            "role",
            "host",
            "pid",
            "started_at",
            "lease_expires_in_ms",
            "state",
            "inflight",
            "models",
            "concurrency",
            "url",
        } | ({"endpoints"} if replica["role"] == "worker" else set())
        assert replica["state"] == "ready"
    urls = {r["url"] for r in replicas if r["role"] == "frontend"}
    assert urls == {f.url for f in cluster.frontends}
    single = next(r for r in replicas if r["models"] == ["single"])
    assert single["concurrency"] == 1
    assert single["endpoints"] == {
        "chat_completions": "native",
        "completions": "native",
        "responses": "translated",
        "messages": "translated",
    }


async def test_models_are_those_of_living_workers(cluster: Cluster) -> None:
    for frontend in cluster.frontends:
        names = [m["id"] for m in (await cluster.get("/v1/models", frontend))["data"]]
        assert names == ["brief", "echo", "raiser", "silent", "single"]
    assert (await cluster.get("/v1/models/echo"))["object"] == "model"
    refusal(await cluster.http.get(cluster.frontends[0].url + "/v1/models/away"), 404)


async def test_probes(cluster: Cluster) -> None:
    for path in ("/live", "/ready", "/health"):
        answer = await cluster.http.get(cluster.frontends[0].url + path)
        assert answer.status_code == 200
        assert answer.json()["status"] in ("live", "ready", "healthy")
        assert answer.headers["x-request-id"]


async def test_an_expired_record_is_unknown(cluster: Cluster, rid: str) -> None:
    async with post(cluster.http, cluster.frontends[0].url, chat("x", "brief"), X_Request_Id=rid) as stream:
        await stream.read()
    await ended(cluster, rid)
    await expire(cluster, rid)
    url = f"{cluster.frontends[1].url}/v1/requests/{rid}"

    async def gone() -> bool:
        return (await cluster.http.get(url)).status_code == 404

    await wait_until(gone)
    refusal(await cluster.http.get(url + "/stream"), 404)
    refusal(await cluster.http.post(url + "/cancel"), 404)
