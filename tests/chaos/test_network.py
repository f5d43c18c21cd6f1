"""The link between one process and Redis: cut, half-open, slow, losing what was said."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from lifecycle.settings import Settings
from tests.chaos.bench import Bench, open_bench
from tests.chaos.engines import numbers
from tests.chaos.faults import Healing
from tests.chaos.proxy import Then, script
from tests.chaos.signatures import text_of
from tests.cluster import Process
from tests.conftest import MakeSettings
from tests.sse import chat, error_of
from tests.waiting import wait_until

GATED = "tests.chaos.engines:gated"
WORDS = " ".join(f"w{number}" for number in range(30))


@pytest.fixture
def impatient(make_settings: MakeSettings) -> Settings:
    """Commands time out well before a lease does."""
    return make_settings(redis_timeout_secs=0.4, echo_tokens_per_sec=50.0)


@pytest.fixture
def long_lease(make_settings: MakeSettings) -> Settings:
    """A lost reply costs a command's timeout, and nobody's lease."""
    return make_settings(redis_timeout_secs=0.4, heartbeat_secs=0.25, lease_secs=8.0, echo_tokens_per_sec=50.0)


async def _says(bench: Bench, frontend: Process, rid: str, words: str = WORDS) -> None:
    """A request from start to end, as if nothing were wrong."""
    async with bench.post(frontend, chat(words), rid) as stream:
        events = await stream.read()
    assert (text_of(events), error_of(events)) == (words, None)


@pytest.mark.fault(
    "A worker's link to Redis is half-open.",
    "It is expired, and its requests end with `worker_lost` or run elsewhere; it ends its engines by itself and "
    "comes back when the link does.",
)
async def test_a_worker_behind_a_blackhole(impatient: Settings, tmp_path: Path, healing: Healing) -> None:
    gate, shut = tmp_path / "gate", tmp_path / "shut"
    gate.touch()
    async with open_bench(impatient, tmp_path, workers=0) as bench:
        victim = await bench.worker("gated", GATED)
        was = await bench.ids(victim)
        frontend = bench.frontends[0]
        async with (
            bench.post(frontend, chat(f"{gate} 100000 0.01", "gated"), "r1") as begun,
            bench.post(frontend, chat(f"{shut} 5 0", "gated"), "r2") as waiting,
        ):
            await begun.read_tokens(3)
            await bench.status("r2", "running")
            await bench.worker("gated", GATED)
            healing.begins()
            bench.link(victim).blackhole()
            error = error_of(await begun.read())
            assert error is not None
            assert error["error_type"] == "worker_lost"
            shut.touch()
            events = await waiting.read()
            healing.is_over()
            assert (text_of(events), error_of(events)) == (numbers(5), None)
        await wait_until(lambda: "stop r1 1" in (tmp_path / "gate.journal").read_text(), timeout=15)
        bench.link(victim).restore()
        await bench.comes_back(victim, was)
        await bench.quiet()
        assert (await bench.ended("r2"))["output_tokens"] == "5"


@pytest.mark.fault(
    "A frontend's link to Redis is half-open.",
    "It is expired, and its requests end with `frontend_lost`; it ends its streams with an error frame by itself "
    "and comes back when the link does.",
)
async def test_a_frontend_behind_a_blackhole(impatient: Settings, tmp_path: Path, healing: Healing) -> None:
    async with open_bench(impatient, tmp_path, frontends=2) as bench:
        victim, other = bench.frontends
        was = await bench.ids(victim)
        async with bench.post(victim, chat("x " * 5000), "r1") as stream:
            await stream.read_tokens(3)
            healing.begins()
            bench.link(victim).blackhole()
            record = await bench.ended("r1")
            assert (record["status"], record["error_type"]) == ("failed", "frontend_lost")
            await bench.quiet()
            error = error_of(await stream.read())
            healing.is_over()
            assert error is not None
            assert error["error_type"] in ("frontend_lost", "unavailable")
        answer = await bench.http.post(victim.url + "/v1/chat/completions", json=chat("x"))
        assert (answer.status_code, answer.headers["retry-after"] > "") == (503, True)
        assert (await bench.http.get(victim.url + "/ready")).status_code == 503
        assert (await bench.http.get(victim.url + "/live")).status_code == 200
        await _says(bench, other, "r2")
        bench.link(victim).restore()
        await bench.comes_back(victim, was)
        await _says(bench, victim, "r3")
        assert await bench.metric("lifecycle_inflight_requests", victim) == 0


@pytest.mark.fault(
    "A frontend's link to Redis is half-open while the first worker of a model joins.",
    "Calls for that model receive 503, not 404.",
)
async def test_a_model_that_cannot_be_looked_up(impatient: Settings, tmp_path: Path, healing: Healing) -> None:
    async with open_bench(impatient, tmp_path) as bench:
        (victim,) = bench.frontends
        bench.link(victim).blackhole()
        await bench.worker("late")

        async def asks() -> int:
            answer = await bench.http.post(victim.url + "/v1/chat/completions", json=chat("x", "late"))
            return answer.status_code

        assert await asyncio.gather(*(asks() for _ in range(10))) == [503] * 10
        healing.begins()
        bench.link(victim).restore()

        async def served() -> bool:
            return await asks() == 200

        await wait_until(served, timeout=20)
        healing.is_over()


@pytest.mark.parametrize("role", ["worker", "frontend"])
@pytest.mark.fault(
    "A replica's link to Redis is cut for less than a lease.",
    "The stream pauses and then continues; nothing is lost.",
)
async def test_a_short_cut(long_lease: Settings, tmp_path: Path, healing: Healing, role: str) -> None:
    async with open_bench(long_lease, tmp_path) as bench:
        victim = (bench.workers if role == "worker" else bench.frontends)[0]
        was = await bench.ids(victim)
        async with bench.post(bench.frontends[0], chat(WORDS), "r1") as stream:
            await stream.read_tokens(3)
            healing.begins()
            bench.link(victim).cut()
            # It has noticed, and has found the link cut again, so the stream pauses: its lease is much longer.
            await wait_until(lambda: bench.link(victim).refused >= 3, what="further connections of the victim")
            bench.link(victim).restore()
            events = await stream.read()
            healing.is_over()
        assert (text_of(events), error_of(events)) == (WORDS, None)
        assert await bench.ids(victim) == was
        await _says(bench, bench.frontends[0], "r2")


@pytest.mark.fault(
    "The message about a cancel is lost on its way to the worker.",
    "The next heartbeat repeats it.",
)
async def test_a_lost_cancel_message(calm: Settings, tmp_path: Path, healing: Healing) -> None:
    async with open_bench(calm, tmp_path, frontends=2, workers=0) as bench:
        worker = await bench.worker("silent", "tests.engines:silent")  # no refused token tells it either
        rule = bench.link(worker).on_reply(b'"type":"cancel"', Then.DROP)
        async with bench.post(bench.frontends[0], chat("2", "silent"), "r1") as stream:
            await stream.read_tokens(2)
            healing.begins()
            url = bench.frontends[1].url + "/v1/requests/r1/cancel"
            answer = await bench.http.post(url, json={"wait_ms": 15_000})
            healing.is_over()
            await rule.fired()
            assert (answer.status_code, answer.json()["status"]) == (200, "cancelled")
            error = error_of(await stream.read())
        assert error is not None
        assert error["error_type"] == "cancelled"


@pytest.mark.fault(
    "The messages about a request's end are lost on their way to a frontend.",
    "Readers that wait for the end find it in the record.",
)
async def test_lost_end_messages(make_settings: MakeSettings, tmp_path: Path, healing: Healing) -> None:
    release = tmp_path / "release"
    settings = make_settings(sse_keepalive_secs=0.5, lease_secs=8.0)
    async with open_bench(settings, tmp_path, workers=0) as bench:
        (frontend,) = bench.frontends
        await bench.worker("stubborn", "tests.engines:stubborn")
        async with bench.post(frontend, chat(str(release), "stubborn"), "r1") as stream:
            await stream.read_tokens(1)
            url = frontend.url + "/v1/requests/r1/cancel"
            cancelling = asyncio.create_task(bench.http.post(url, json={"wait_ms": 15_000}))
            channel = bench.store.keys.channel("r1")

            async def waits() -> bool:
                return bool((await bench.execute("PUBSUB", "NUMSUB", channel))[1] == 1)

            await wait_until(waits)
            link = bench.link(frontend)
            published = link.on_reply(b"\r\nmessage\r\n", Then.DROP)
            pushed = link.on_reply(b'"type":"terminal"', Then.DROP)
            healing.begins()
            release.touch()
            answer = await cancelling
            assert (answer.status_code, answer.json()["status"]) == (200, "cancelled")
            error = error_of(await stream.read())
            await bench.quiet()
            healing.is_over()
            await published.fired()
            await pushed.fired()
        assert error is not None
        assert error["error_type"] == "cancelled"


@pytest.mark.parametrize("then", [Then.RESET, Then.SWALLOW], ids=lambda then: then.name.lower())
@pytest.mark.parametrize("name", ["take", "append", "finish"])
@pytest.mark.fault(
    "The reply to a worker's take, append or finish is lost: the connection is reset, or the reply never arrives.",
    "The call is repeated; nothing happens twice, and nothing is lost.",
)
async def test_a_workers_call_is_not_confirmed(
    long_lease: Settings, tmp_path: Path, healing: Healing, name: str, then: Then
) -> None:
    async with open_bench(long_lease, tmp_path) as bench:
        (worker,) = bench.workers
        was = await bench.ids(worker)
        rule = bench.link(worker).on_request(script(name), then)
        healing.begins()
        await _says(bench, bench.frontends[0], "r1")
        healing.is_over()
        await rule.fired()
        assert await bench.ids(worker) == was
        record = await bench.ended("r1")
        assert (record["status"], record["attempt"], record["output_tokens"]) == ("completed", "1", "30")


@pytest.mark.fault(
    "The reply to a frontend's admit is lost because the connection is reset.",
    "The call is repeated, and the request is admitted once.",
)
async def test_an_admission_is_reset(long_lease: Settings, tmp_path: Path, healing: Healing) -> None:
    async with open_bench(long_lease, tmp_path) as bench:
        (frontend,) = bench.frontends
        rule = bench.link(frontend).on_request(script("admit"), Then.RESET)
        healing.begins()
        await _says(bench, frontend, "r1")
        healing.is_over()
        await rule.fired()
        assert (await bench.ended("r1"))["attempt"] == "1"


@pytest.mark.parametrize("on_disconnect", ["cancel", "continue"])
@pytest.mark.fault(
    "The reply to a frontend's admit never arrives.",
    "The client receives 503; if the request was admitted nevertheless, it is cancelled.",
)
async def test_an_admission_is_swallowed(
    long_lease: Settings, tmp_path: Path, healing: Healing, on_disconnect: str
) -> None:
    async with open_bench(long_lease, tmp_path) as bench:
        (frontend,) = bench.frontends
        rule = bench.link(frontend).on_request(script("admit"), Then.SWALLOW)
        healing.begins()
        async with bench.post(frontend, chat("x " * 5000), "r1", X_On_Disconnect=on_disconnect) as stream:
            await rule.fired()
            assert stream.response.status_code == 503
        record = await bench.ended("r1")
        healing.is_over()
        assert record["status"] == "cancelled"
        await bench.quiet()
        await _says(bench, frontend, "r2")


async def test_a_key_repeats_a_call_whose_admission_is_swallowed(long_lease: Settings, tmp_path: Path) -> None:
    """It attaches to the request, which is not cancelled meanwhile, although its first call was refused."""
    async with open_bench(long_lease, tmp_path) as bench:
        (frontend,) = bench.frontends
        rule = bench.link(frontend).on_request(script("admit"), Then.SWALLOW)
        body = chat("x " * 300)
        async with bench.post(frontend, body, "r1", Idempotency_Key="k") as refused:
            await rule.fired()
            assert refused.response.status_code == 503
        async with bench.post(frontend, body, "r2", Idempotency_Key="k") as stream:
            assert stream.response.status_code == 200
            assert error_of(await stream.read()) is None
        assert (await bench.ended("r1"))["status"] == "completed"
        await bench.quiet()


@pytest.mark.parametrize("then", [Then.RESET, Then.SWALLOW], ids=lambda then: then.name.lower())
@pytest.mark.fault(
    "The reply to a frontend's cancel is lost: the connection is reset, or the reply never arrives.",
    "The call is repeated, and the request is cancelled once.",
)
async def test_a_cancel_is_not_confirmed(long_lease: Settings, tmp_path: Path, healing: Healing, then: Then) -> None:
    async with open_bench(long_lease, tmp_path, frontends=2) as bench:
        owner, other = bench.frontends
        rule = bench.link(other).on_request(script("cancel"), then)
        async with bench.post(owner, chat("x " * 5000), "r1") as stream:
            await stream.read_tokens(2)
            healing.begins()
            answer = await bench.http.post(other.url + "/v1/requests/r1/cancel", json={"wait_ms": 10_000})
            healing.is_over()
            await rule.fired()
            assert (answer.status_code, answer.json()["status"]) == (200, "cancelled")
            error = error_of(await stream.read())
        assert error is not None
        assert error["error_type"] == "cancelled"
        assert await bench.metric("lifecycle_cancellations_total", owner) == 1


@pytest.mark.parametrize("then", [Then.RESET, Then.DROP], ids=lambda then: then.name.lower())
@pytest.mark.fault(
    "A request is lost on its way to the worker that has taken it: the connection is reset, or the reply never "
    "arrives.",
    "The take is repeated, and the request runs once.",
)
async def test_a_lost_reply_to_a_take(long_lease: Settings, tmp_path: Path, healing: Healing, then: Then) -> None:
    async with open_bench(long_lease, tmp_path) as bench:
        rule = bench.link(bench.workers[0]).on_reply(b"the-request", then)
        healing.begins()
        await _says(bench, bench.frontends[0], "the-request")
        healing.is_over()
        await rule.fired()
        record = await bench.ended("the-request")
        assert (record["attempt"], record["output_tokens"]) == ("1", "30")


@pytest.mark.fault(
    "Every link to Redis delays by 0.1 s in each direction.",
    "Everything works, and no replica is expired.",
)
async def test_a_slow_link(make_settings: MakeSettings, tmp_path: Path, healing: Healing) -> None:
    settings = make_settings(lease_secs=4.0, echo_tokens_per_sec=50.0)
    async with open_bench(settings, tmp_path, frontends=2, workers=2) as bench:
        processes = [*bench.frontends, *bench.workers]
        was = [await bench.ids(process) for process in processes]
        for process in processes:
            bench.link(process).delay_secs = 0.1
        healing.begins()
        await asyncio.gather(*(_says(bench, bench.frontends[n % 2], f"r{n}") for n in range(10)))
        healing.is_over()
        async with bench.post(bench.frontends[0], chat("x " * 5000), "cancelled") as stream:
            await stream.read_tokens(2)
            url = bench.frontends[1].url + "/v1/requests/cancelled/cancel"
            assert (await bench.http.post(url, json={"wait_ms": 10_000})).status_code == 200
            await stream.read()
        assert [await bench.ids(process) for process in processes] == was


@pytest.mark.fault(
    "The wall clock of one replica is an hour off.",
    "It has no effect, because no decision uses a wall clock.",
)
async def test_a_wrong_wall_clock(settings: Settings, tmp_path: Path, healing: Healing) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import os, time\n"
        "true, shift = time.time, float(os.environ.get('CLOCK_SHIFT_SECS', '0'))\n"
        "time.time = lambda: true() + shift\n"
    )
    async with open_bench(settings, tmp_path, workers=0) as bench:
        bench.environment["CLOCK_SHIFT_SECS"] = "3600"
        fast = await bench.frontend()
        await bench.worker()
        bench.environment["CLOCK_SHIFT_SECS"] = "-3600"
        await bench.frontend()
        slow_worker = await bench.worker("slow")
        del bench.environment["CLOCK_SHIFT_SECS"]
        healing.begins()
        before = time.time()
        for frontend in bench.frontends:
            await _says(bench, frontend, f"r{bench.frontends.index(frontend)}")
        shown = (await bench.get("/v1/replicas"))["data"]
        off = {round((replica["started_at"] - before) / 3600) for replica in shown}
        assert off == {0, 1, -1}  # only what a replica says of itself is off
        for index in range(3):
            record = await bench.record(f"r{index}")
            assert abs(record["finished_at"] - before) < 120
        was = await bench.ids(slow_worker)
        async with bench.post(fast, chat(WORDS, "slow"), "r4", X_Deadline_Secs="30") as stream:
            await stream.read_tokens(2)
            await bench.kill(slow_worker)
            error = error_of(await stream.read())
        healing.is_over()
        assert error is not None
        assert error["error_type"] == "worker_lost"
        assert was
