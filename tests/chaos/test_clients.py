"""Clients that go away at every moment, read nothing, or come all at once."""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from functools import partial
from pathlib import Path

import httpx2
import orjson
import pytest

from lifecycle.settings import Settings
from tests.chaos.bench import Bench, open_bench
from tests.chaos.faults import Healing
from tests.chaos.signatures import text_of
from tests.cluster import Process
from tests.conftest import MakeSettings
from tests.sse import chat, error_of
from tests.waiting import wait_until

GATED = "tests.chaos.engines:gated"


async def _is_cancelled(bench: Bench, rid: str, disconnects: int) -> None:
    """Check that the request was cancelled once, because of its client, and has left nothing behind."""
    record = await bench.ended(rid)
    assert (record["status"], record["error_type"], record["cancel_mode"]) == ("cancelled", "cancelled", "kill")
    await bench.quiet()
    for name in ("client_disconnects", "cancellations"):
        seen = await wait_until(partial(bench.metric, f"lifecycle_{name}_total"))
        assert seen == disconnects


@pytest.mark.fault(
    "A client disconnects while its request is queued, before its first token, mid-stream, or during its last tokens.",
    "The request is cancelled once, its engine stops, and one disconnect is counted.",
)
async def test_gone_at_every_phase(calm: Settings, tmp_path: Path, healing: Healing) -> None:
    gate, shut = tmp_path / "gate", tmp_path / "shut"
    gate.touch()
    async with open_bench(calm, tmp_path, workers=0) as bench:
        (frontend,) = bench.frontends
        await bench.worker("gated", GATED, concurrency=1)

        async with bench.post(frontend, chat(f"{shut} 3 0", "gated"), "blocker", X_On_Disconnect="continue"):
            await bench.status("blocker", "running")
            async with bench.post(frontend, chat(f"{gate} 3 0", "gated"), "queued"):
                await bench.status("queued", "queued")
        shut.touch()
        await bench.ended("blocker")
        record = await bench.ended("queued")
        assert (record["status"], record["attempt"]) == ("cancelled", "0")

        shut.unlink()
        async with bench.post(frontend, chat(f"{shut} 3 0", "gated"), "early"):
            await bench.status("early", "running")
            healing.begins()
        await bench.ended("early")
        healing.is_over()

        async with bench.post(frontend, chat(f"{gate} 100000 0.01", "gated"), "middle") as stream:
            await stream.read_tokens(5)
            healing.begins()
        await bench.ended("middle")
        healing.is_over()

        async with bench.post(frontend, chat(f"{gate} 20 0.05", "gated"), "late") as stream:
            await stream.read_tokens(19)
        record = await bench.ended("late")
        assert record["status"] in ("cancelled", "completed")  # it was about to end
        cancelled = 4 if record["status"] == "cancelled" else 3

        journal = (tmp_path / "gate.journal").read_text() + (tmp_path / "shut.journal").read_text()
        assert journal.count("start") == journal.count("stop") == 4
        await bench.quiet()
        # The blocker's client went too, without a cancellation; and so may the last one's, after its end.
        assert await bench.metric("lifecycle_client_disconnects_total") in (4, 5)
        assert await bench.metric("lifecycle_cancellations_total") == cancelled


@pytest.mark.fault(
    "A client disconnects while it waits for a unary response.",
    "The request is cancelled once, and its engine stops.",
)
async def test_gone_while_unary(calm: Settings, tmp_path: Path, healing: Healing) -> None:
    gate = tmp_path / "gate"
    gate.touch()
    async with open_bench(calm, tmp_path, workers=0) as bench:
        (frontend,) = bench.frontends
        await bench.worker("gated", GATED)
        body = chat(f"{gate} 100000 0.01", "gated") | {"stream": False}
        url, headers = frontend.url + "/v1/chat/completions", {"X-Request-Id": "r1"}
        client = asyncio.create_task(bench.http.post(url, json=body, headers=headers))
        journal = tmp_path / "gate.journal"
        await wait_until(lambda: journal.exists() and "start r1 1" in journal.read_text())
        healing.begins()
        client.cancel()
        with suppress(asyncio.CancelledError):
            await client
        await _is_cancelled(bench, "r1", 1)
        await wait_until(lambda: journal.exists() and "stop r1 1" in journal.read_text())
        healing.is_over()


def _resident_bytes(process: Process) -> int:
    fields = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in fields if line.startswith("VmRSS:"))


def _asks(frontend: Process, rid: str, body: dict[str, object]) -> socket.socket:
    """A client that sends its request and reads nothing, not even into its kernel's buffer if it can help it."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    host, _, port = frontend.url.removeprefix("http://").partition(":")
    sock.connect((host, int(port)))
    content = orjson.dumps(body)
    headers = f"Host: localhost\r\nX-Request-Id: {rid}\r\nContent-Length: {len(content)}"
    sock.sendall(f"POST /v1/chat/completions HTTP/1.1\r\n{headers}\r\n\r\n".encode() + content)
    return sock


@pytest.mark.fault(
    "A client reads nothing while its engine produces tokens as fast as it can.",
    "The frontend's memory grows by less than 8 MB and other streams continue; in the end the connection is closed "
    "with `slow_consumer`.",
)
async def test_a_client_that_does_not_read(make_settings: MakeSettings, tmp_path: Path, healing: Healing) -> None:
    settings = make_settings(slow_consumer_secs=1.0, lease_secs=8.0, heartbeat_secs=0.5, max_output_bytes=1 << 28)
    async with open_bench(settings, tmp_path, workers=0) as bench:
        (frontend,) = bench.frontends
        await bench.worker("flood", "tests.chaos.engines:flood")
        await bench.worker()
        async with bench.post(frontend, chat("warm up"), "r0") as stream:
            await stream.read()
        before = _resident_bytes(frontend)
        healing.begins()
        sock = _asks(frontend, "deaf", chat("1000", "flood"))
        try:
            words = " ".join(f"w{number}" for number in range(40))
            async with bench.post(frontend, chat(words), "other") as other:
                events = await other.read()
            assert (text_of(events), error_of(events)) == (words, None)
            record = await bench.ended("deaf")
            healing.is_over()
        finally:
            sock.close()
        assert (record["status"], record["error_type"]) == ("failed", "slow_consumer")
        assert int(record["output_tokens"]) > 10_000  # 10 MB that nobody has read: more than its memory may grow
        assert _resident_bytes(frontend) - before < 8_000_000
        assert await bench.metric("lifecycle_requests_total", error_type="slow_consumer") == 1


@pytest.mark.fault(
    "An engine produces tokens without end.",
    "Beyond `LIFECYCLE_MAX_OUTPUT_BYTES` the request fails as `overload`, its engine is ended, and its client gets "
    "what was produced and the error.",
)
async def test_an_answer_without_end(make_settings: MakeSettings, tmp_path: Path, healing: Healing) -> None:
    settings = make_settings(lease_secs=8.0, max_output_bytes=5_000_000)
    async with open_bench(settings, tmp_path, workers=0) as bench:
        (frontend,) = bench.frontends
        await bench.worker("flood", "tests.chaos.engines:flood")
        healing.begins()
        async with bench.post(frontend, chat("998", "flood"), "r1") as stream:
            events = await stream.read()
        await bench.quiet()
        healing.is_over()
        error = error_of(events)
        assert error is not None
        assert (error["type"], error["code"], error["error_type"]) == ("output_too_large", 500, "overload")
        assert text_of(events) == "x" * 998 * 5000
        record = await bench.ended("r1")
        assert (record["status"], record["error_type"], record["output_tokens"]) == ("failed", "overload", "5000")


@pytest.mark.fault(
    "500 readers resume the same stream at once.",
    "Each of them reads the complete text.",
)
async def test_a_storm_of_readers(make_settings: MakeSettings, tmp_path: Path, healing: Healing) -> None:
    words = " ".join(f"w{number}" for number in range(60))
    async with open_bench(make_settings(lease_secs=8.0), tmp_path, frontends=2) as bench:
        async with bench.post(bench.frontends[0], chat(words), "r1", X_On_Disconnect="continue") as stream:
            await stream.read_tokens(3)
        healing.begins()

        async def reads(index: int) -> str:
            async with bench.resume(bench.frontends[index % 2], "r1") as reader:
                events = await reader.read()
            assert error_of(events) is None
            return text_of(events)

        texts = await asyncio.gather(*map(reads, range(500)))
        healing.is_over()
        assert set(texts) == {words}
        assert (await bench.ended("r1"))["status"] == "completed"


@pytest.mark.fault(
    "1,000 running requests are cancelled at once.",
    "All cancels are confirmed, every engine stops, and the counts are 0.",
)
async def test_a_mass_cancel(make_settings: MakeSettings, tmp_path: Path, healing: Healing) -> None:
    ends = tmp_path / "ends"
    settings = make_settings(lease_secs=30.0, heartbeat_secs=1.0, sweep_secs=1.0, redis_timeout_secs=10.0)
    async with open_bench(
        settings, tmp_path, frontends=2, workers=0, proxied=False, settle_secs=60, poll_secs=1.0
    ) as bench:
        for _ in range(2):
            await bench.worker("idle", "tests.chaos.engines:idle", concurrency=500)
        rids = [f"r{number}" for number in range(1000)]
        body = chat(str(ends), "idle") | {"stream": False}

        async def asks(index: int) -> httpx2.Response:
            url = bench.frontends[index % 2].url + "/v1/chat/completions"
            return await bench.http.post(url, json=body, headers={"X-Request-Id": rids[index]}, timeout=90)

        async def all_run() -> bool:
            return bool((await bench.get("/v1/inflight"))["running"] == 1000)

        clients = [asyncio.create_task(asks(index)) for index in range(1000)]
        try:
            await wait_until(all_run, timeout=60)
            healing.begins()

            async def cancels(index: int) -> tuple[int, str]:
                url = f"{bench.frontends[(index + 1) % 2].url}/v1/requests/{rids[index]}/cancel"
                answer = await bench.http.post(url, json={"wait_ms": 30_000}, timeout=90)
                return answer.status_code, answer.json().get("status", answer.text)

            answers = await asyncio.gather(*map(cancels, range(1000)))
            await bench.quiet(timeout=30)
            healing.is_over()
            assert set(answers) == {(200, "cancelled")}
            assert sorted(ends.read_text().splitlines()) == sorted(rids)
            assert {answer.status_code for answer in await asyncio.gather(*clients)} == {499}
        finally:
            for client in clients:
                client.cancel()
            await asyncio.gather(*clients, return_exceptions=True)
