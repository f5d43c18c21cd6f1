"""SIGTERM under load: nothing is lost, and what cannot finish ends with a reason or moves."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from itertools import count
from pathlib import Path

import pytest

from lifecycle.types import Role
from tests.chaos.bench import Bench, open_bench
from tests.chaos.engines import numbers
from tests.chaos.faults import Healing
from tests.chaos.signatures import text_of
from tests.cluster import Process
from tests.conftest import MakeSettings
from tests.joining import leave
from tests.sse import chat, error_of
from tests.waiting import wait_until

GATED = "tests.chaos.engines:gated"
SHORT = 10


async def _outcome(bench: Bench, frontend: Process, rid: str, body: dict[str, object]) -> str:
    """`whole`, or why not."""
    async with bench.post(frontend, body, rid) as stream:
        if stream.response.status_code != 200:
            await stream.response.aread()
            return str(stream.response.json()["error"]["code"])
        error = error_of(await stream.read())
    return "whole" if error is None else str(error["error_type"])


@pytest.mark.fault(
    "A worker receives SIGTERM under load.",
    "Requests that finish within the drain timeout complete; of the others, those without a token are moved and "
    "the rest end with `worker_lost`; no request is lost.",
)
async def test_a_worker_leaves(make_settings: MakeSettings, tmp_path: Path, healing: Healing) -> None:
    gate, shut = tmp_path / "gate", tmp_path / "shut"
    gate.touch()
    async with open_bench(make_settings(drain_timeout_secs=2.0), tmp_path, workers=0) as bench:
        (frontend,) = bench.frontends
        leaving = await bench.worker("gated", GATED)
        bodies = {
            "short": chat(f"{gate} 20 0.03", "gated"),
            "long": chat(f"{gate} 100000 0.02", "gated"),
            "waits": chat(f"{shut} 5 0", "gated"),
        }
        clients = {
            f"{kind}-{number}": asyncio.create_task(_outcome(bench, frontend, f"{kind}-{number}", body))
            for kind, body in bodies.items()
            for number in range(SHORT)
        }
        for rid in clients:
            await bench.status(rid, "running")
        other = await bench.worker("gated", GATED)
        healing.begins()
        leaving.signal(signal.SIGTERM)

        async def draining() -> bool:
            replicas = (await bench.get("/v1/replicas"))["data"]
            return any(r["pid"] == leaving.pid and r["state"] == "draining" for r in replicas)

        await wait_until(draining)
        late = await _outcome(bench, frontend, "late", bodies["short"])  # taken by the other
        assert await leaving.process.wait() == 0
        bench.forget(leaving)
        healing.is_over()
        shut.touch()
        outcomes = {rid: await client for rid, client in clients.items()}
        assert late == "whole"
        assert Counter((rid.partition("-")[0], outcome) for rid, outcome in outcomes.items()) == {
            ("short", "whole"): SHORT,
            ("waits", "whole"): SHORT,
            ("long", "worker_lost"): SHORT,
        }
        assert {(await bench.ended(f"waits-{n}"))["worker"] for n in range(SHORT)} == await bench.ids(other)


@pytest.mark.fault(
    "A worker whose engine cannot be ended receives SIGTERM.",
    "Its requests end with `worker_lost` and its slots are free for others; the process ends some seconds after its "
    "drain, and its log names the engine.",
)
async def test_a_stuck_engine_is_left(make_settings: MakeSettings, tmp_path: Path, healing: Healing) -> None:
    settings = make_settings(drain_timeout_secs=0.5, kill_grace_secs=0.2)
    async with open_bench(settings, tmp_path, workers=0) as bench:
        (frontend,) = bench.frontends
        leaving = await bench.worker("stubborn", "tests.engines:stubborn")
        async with bench.post(frontend, chat(str(tmp_path / "never"), "stubborn"), "r1") as stream:
            await stream.read_tokens(1)
            healing.begins()
            leaving.signal(signal.SIGTERM)
            error = error_of(await stream.read())
            async with asyncio.timeout(10):
                assert await leaving.process.wait() == 1
            healing.is_over()
        bench.forget(leaving)
        assert error is not None
        assert error["error_type"] == "worker_lost"
        assert "the engine tests.engines:stubborn does not end: request r1" in leaving.log.read_text()


@pytest.mark.fault(
    "A frontend receives SIGTERM under load.",
    "It is not ready from that moment; requests that finish within the drain timeout complete; the others end "
    "with an error frame, or continue under a new owner.",
)
async def test_a_frontend_leaves(make_settings: MakeSettings, tmp_path: Path, healing: Healing) -> None:
    gate = tmp_path / "gate"
    gate.touch()
    async with open_bench(make_settings(drain_timeout_secs=2.0), tmp_path, frontends=2, workers=0) as bench:
        leaving, other = bench.frontends
        await bench.worker("gated", GATED)
        short, long = chat(f"{gate} 20 0.03", "gated"), chat(f"{gate} 100000 0.02", "gated")
        async with bench.post(leaving, chat(f"{gate} 150 0.03", "gated"), "goes-on", X_On_Disconnect="continue") as on:
            clients = [
                asyncio.create_task(_outcome(bench, frontend, f"{kind}-{where}-{number}", body))
                for kind, body in (("short", short), ("long", long))
                for where, frontend in (("leaving", leaving), ("other", other))
                for number in range(SHORT)
                if (kind, where) != ("long", "other")
            ]
            for number in range(SHORT):
                await bench.status(f"long-leaving-{number}", "running")
            await on.read_tokens(1)
            healing.begins()
            leaving.signal(signal.SIGTERM)

            async def unready() -> bool:
                return (await bench.http.get(leaving.url + "/ready")).status_code == 503

            await wait_until(unready)
            assert await _outcome(bench, leaving, "late", short) == "draining"
            outcomes = Counter([await client for client in clients])
            error = error_of(await on.read())
        assert await leaving.process.wait() == 0
        bench.forget(leaving)
        healing.is_over()
        assert outcomes == {"whole": 2 * SHORT, "frontend_lost": SHORT}
        assert error is not None
        last = [event.id for event in on.events if event.id][-1]
        async with bench.resume(other, "goes-on", last or "") as rest:
            await rest.read()
        assert text_of(on.events) + text_of(rest.events) == numbers(150)


@pytest.mark.fault(
    "Every replica is replaced, one after the other, under load.",
    "No request fails, and each client reads its complete text.",
)
async def test_a_rolling_restart(make_settings: MakeSettings, tmp_path: Path, healing: Healing) -> None:
    async with open_bench(make_settings(echo_tokens_per_sec=50.0), tmp_path, frontends=2, workers=2) as bench:
        words = " ".join(f"w{number}" for number in range(30))
        serving = list(bench.frontends)
        names, outcomes, over = count(), Counter[str](), False

        async def asks_on(turn: int) -> None:
            """Send requests as a load balancer does: after a 503, ask another frontend."""
            while not over:
                turn += 1
                outcomes[await _outcome(bench, serving[turn % len(serving)], f"r{next(names)}", chat(words))] += 1

        async with asyncio.TaskGroup() as group:
            for turn in range(4):
                group.create_task(asks_on(turn))
            await wait_until(lambda: outcomes["whole"] >= 4, what="answers before the first replacement")
            healing.begins()
            for old in list(bench.workers):
                await bench.worker()
                assert await old.terminate() == 0
                bench.forget(old)
            for old in list(serving):
                serving.append(await bench.frontend())
                serving.remove(old)
                assert await old.terminate() == 0
            healing.is_over()
            over = True
        assert outcomes["whole"] > 20
        assert set(outcomes) <= {"whole", "draining"}


@pytest.mark.parametrize("role", ["worker", "frontend"])
@pytest.mark.fault(
    "A replica that has been expired, and has not noticed it yet, receives SIGTERM.",
    "The process ends by itself.",
)
async def test_an_expired_replica_is_told_to_leave(
    make_settings: MakeSettings, tmp_path: Path, healing: Healing, role: str
) -> None:
    settings = make_settings(heartbeat_secs=4.0, lease_secs=10.0)  # no heartbeat comes before it is told to leave
    async with open_bench(settings, tmp_path, frontends=2, workers=2) as bench:
        expired = (bench.workers if role == "worker" else bench.frontends)[0]
        (name,) = await bench.ids(expired)
        await leave(bench.store, name, Role(role))
        healing.begins()
        expired.signal(signal.SIGTERM)
        async with asyncio.timeout(15):
            assert await expired.process.wait() == 0
        healing.is_over()
        bench.forget(expired)
