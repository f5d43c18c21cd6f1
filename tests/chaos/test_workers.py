"""A worker dies, hangs or blocks, at every moment of a request."""

from __future__ import annotations

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
from tests.engines import STREAM_ENDED
from tests.sse import chat, error_of
from tests.waiting import wait_until

GATED = "tests.chaos.engines:gated"


async def _runs_it(bench: Bench, rid: str) -> Process:
    """The process whose worker runs this request."""
    worker = (await bench.status(rid, "running"))["worker"]
    for process in bench.workers:
        if worker in await bench.ids(process):
            return process
    raise AssertionError(f"{worker} is nobody")


@pytest.mark.fault(
    "A worker is killed (`kill -9`) before the first token.",
    "Another worker runs the request, and the client only observes a delay.",
)
async def test_killed_before_the_first_token(settings: Settings, tmp_path: Path, healing: Healing) -> None:
    gate = tmp_path / "gate"
    async with open_bench(settings, tmp_path, workers=0) as bench:
        for _ in range(2):
            await bench.worker("gated", GATED)
        async with bench.post(bench.frontends[0], chat(f"{gate} 5 0.01", "gated"), "r1") as stream:
            victim = await _runs_it(bench, "r1")
            healing.begins()
            await bench.kill(victim)
            gate.touch()
            events = await stream.read()
            healing.is_over()
        assert (text_of(events), error_of(events)) == (numbers(5), None)
        assert {event.id for event in events if event.id} == {f"2-{n}" for n in range(1, 6)}
        assert (await bench.ended("r1"))["attempt"] == "2"


@pytest.mark.fault(
    "A worker is killed (`kill -9`) mid-stream.",
    "The client receives an error frame with `worker_lost` and `[DONE]`; the counts are right, and requests of "
    "other workers continue.",
)
async def test_killed_mid_stream(steady: Settings, tmp_path: Path, healing: Healing) -> None:
    async with open_bench(steady, tmp_path, workers=0) as bench:
        for _ in range(2):
            await bench.worker("paced", "tests.chaos.engines:paced", concurrency=1)
        url = bench.frontends[0]
        async with (
            bench.post(url, chat("10000 0.01", "paced"), "r1") as lost,
            bench.post(url, chat("200 0.02", "paced"), "r2") as other,
        ):
            await lost.read_tokens(3)
            victim = await _runs_it(bench, "r1")
            await other.read_tokens(3)
            healing.begins()
            await bench.kill(victim)
            error = error_of(await lost.read())
            assert await bench.inflight() == 1
            healing.is_over()
            assert error is not None
            assert (error["message"], error["error_type"], error["code"]) == (STREAM_ENDED, "worker_lost", 500)
            events = await other.read()
        assert (text_of(events), error_of(events)) == (numbers(200), None)


@pytest.mark.fault(
    "A worker is killed (`kill -9`) after Redis has executed its finish and before the reply arrives.",
    "The request is `completed`, counted once, and its text is complete.",
)
async def test_killed_after_its_finish_was_executed(settings: Settings, tmp_path: Path, healing: Healing) -> None:
    async with open_bench(settings, tmp_path) as bench:
        (worker,) = bench.workers
        rule = bench.link(worker).on_request(script("finish"), Then.SWALLOW)
        async with bench.post(bench.frontends[0], chat("a b c"), "r1") as stream:
            await rule.fired()
            healing.begins()
            await bench.kill(worker)
            events = await stream.read()
        await bench.quiet()
        healing.is_over()
        assert (text_of(events), error_of(events)) == ("a b c", None)
        assert (await bench.ended("r1"))["status"] == "completed"


@pytest.mark.fault(
    "A worker is stopped with SIGSTOP for longer than its lease and continued with SIGCONT.",
    "It is expired; the tokens it still holds reach no reader, its engines end, and it comes back under a new id.",
)
async def test_frozen_beyond_its_lease(settings: Settings, tmp_path: Path, healing: Healing) -> None:
    gate = tmp_path / "gate"
    async with open_bench(settings, tmp_path, workers=0) as bench:
        frozen = await bench.worker("gated", GATED)
        was = await bench.ids(frozen)
        gate_open = tmp_path / "open"
        gate_open.touch()
        frontend = bench.frontends[0]
        async with (
            bench.post(frontend, chat(f"{gate_open} 100000 0.01", "gated"), "r1") as begun,
            bench.post(frontend, chat(f"{gate} 60 0.02", "gated"), "r2") as waiting,
            bench.post(frontend, chat(f"{tmp_path / 'never'} 1 0", "gated"), "r3"),
        ):
            await begun.read_tokens(3)
            await bench.status("r2", "running")
            await bench.status("r3", "running")
            other = await bench.worker("gated", GATED)
            healing.begins()
            bench.freeze(frozen)
            error = error_of(await begun.read())
            assert error is not None
            assert error["error_type"] == "worker_lost"
            assert await _runs_it(bench, "r2") is other
            healing.is_over()
            gate.touch()  # both attempts begin to talk
            await waiting.read_tokens(3)
            bench.thaw(frozen)
            events = await waiting.read()
            assert (text_of(events), error_of(events)) == (numbers(60), None)
            assert {event.id.partition("-")[0] for event in events if event.id} == {"2"}
            never = tmp_path / "never.journal"
            await wait_until(lambda: "stop r3 1" in never.read_text())  # though no token of it was refused
        await bench.comes_back(frozen, was)
        record = await bench.ended("r2")
        assert (record["status"], record["attempt"], record["output_tokens"]) == ("completed", "2", "60")
        journals = (tmp_path / "open.journal").read_text() + (tmp_path / "gate.journal").read_text()
        assert {"stop r1 1", "stop r2 1", "stop r2 2"} <= set(journals.splitlines())


@pytest.mark.fault(
    "A worker with an unconfirmed cancel is killed (`kill -9`).",
    "The expiry of the worker confirms the cancel: the request is `cancelled`.",
)
async def test_killed_with_a_cancel_pending(settings: Settings, tmp_path: Path, healing: Healing) -> None:
    async with open_bench(settings, tmp_path, workers=0) as bench:
        worker = await bench.worker("stubborn", "tests.engines:stubborn")
        url = bench.frontends[0].url
        async with bench.post(bench.frontends[0], chat(str(tmp_path / "never"), "stubborn"), "r1") as stream:
            await stream.read_tokens(1)
            answer = await bench.http.post(url + "/v1/requests/r1/cancel", json={"reason": "enough", "wait_ms": 300})
            assert (answer.status_code, answer.json()["status"]) == (202, "running")
            healing.begins()
            await bench.kill(worker)
            answer = await bench.http.post(url + "/v1/requests/r1/cancel", json={"wait_ms": 15_000})
            healing.is_over()
            assert (answer.status_code, answer.json()["status"]) == (200, "cancelled")
            error = error_of(await stream.read())
        assert error is not None
        assert (error["error_type"], error["message"]) == ("cancelled", "enough")


@pytest.mark.fault(
    "A worker's event loop is blocked for less than a lease.",
    "The stream pauses; there is no other effect.",
)
async def test_blocked_below_its_lease(make_settings: MakeSettings, tmp_path: Path, healing: Healing) -> None:
    settings = make_settings(heartbeat_secs=0.25, lease_secs=6.0)
    async with open_bench(settings, tmp_path, workers=0) as bench:
        worker = await bench.worker("blocking", "tests.chaos.engines:blocking")
        was = await bench.ids(worker)
        async with bench.post(bench.frontends[0], chat("5 2.0", "blocking"), "r1") as stream:
            healing.begins()
            events = await stream.read()
            healing.is_over()
        assert (text_of(events), error_of(events)) == (numbers(5), None)
        assert await bench.ids(worker) == was


@pytest.mark.fault(
    "A worker's event loop is blocked for longer than a lease.",
    "The worker keeps its lease, and its log names what blocks; the stream pauses, and there is no other effect.",
)
async def test_blocked_beyond_its_lease(settings: Settings, tmp_path: Path, healing: Healing) -> None:
    async with open_bench(settings, tmp_path, workers=0) as bench:
        worker = await bench.worker("blocking", "tests.chaos.engines:blocking")
        was = await bench.ids(worker)
        async with bench.post(bench.frontends[0], chat("5 3.0", "blocking"), "r1") as stream:
            healing.begins()
            events = await stream.read()
            healing.is_over()
        assert (text_of(events), error_of(events)) == (numbers(5), None)
        assert await bench.ids(worker) == was
        assert "engines.py" in worker.log.read_text()


@pytest.mark.fault(
    "A worker's event loop is blocked for longer than `LIFECYCLE_BLOCKED_LOOP_SECS` and a lease.",
    "It is expired, and its requests end with `worker_lost`; its engine ends, and it comes back under a new id.",
)
async def test_blocked_for_too_long(make_settings: MakeSettings, tmp_path: Path, healing: Healing) -> None:
    async with open_bench(make_settings(blocked_loop_secs=1.0), tmp_path, workers=0) as bench:
        worker = await bench.worker("blocking", "tests.chaos.engines:blocking")
        was = await bench.ids(worker)
        async with bench.post(bench.frontends[0], chat("500 4.0", "blocking"), "r1") as stream:
            await stream.read_tokens(1)
            healing.begins()
            error = error_of(await stream.read())
            assert error is not None
            assert error["error_type"] == "worker_lost"
            healing.is_over()
        await bench.comes_back(worker, was)
        async with bench.post(bench.frontends[0], chat("3 0", "blocking"), "r2") as stream:
            assert text_of(await stream.read()) == numbers(3)


@pytest.mark.fault(
    "An engine terminates the process of its worker in every attempt.",
    "The request ends with `worker_lost` after `MAX_ATTEMPTS` attempts; other requests and the queue are still served.",
)
async def test_a_request_that_kills_every_worker(make_settings: MakeSettings, tmp_path: Path, healing: Healing) -> None:
    async with open_bench(make_settings(max_attempts=2, lease_secs=2.0), tmp_path, workers=0) as bench:
        frontend = bench.frontends[0]
        for _ in range(3):
            await bench.worker("poisoned", "tests.chaos.engines:poisoned", concurrency=1)
        async with bench.post(frontend, chat("600 0.02", "poisoned"), "bystander") as bystander:
            await bystander.read_tokens(1)
            survivor = await _runs_it(bench, "bystander")
            async with bench.post(frontend, chat("poison", "poisoned"), "poison") as stream:
                healing.begins()
                error = error_of(await stream.read())
                healing.is_over()
            assert error is not None
            assert error["error_type"] == "worker_lost"
            assert (await bench.ended("poison"))["attempt"] == "2"
            await bystander.read_tokens(10)
            await bench.http.post(frontend.url + "/v1/requests/bystander/cancel", json={"mode": "stop"})
            assert error_of(await bystander.read()) is None
        async with bench.post(frontend, chat("3 0", "poisoned"), "next") as stream:
            assert text_of(await stream.read()) == numbers(3)
        for process in list(bench.workers):
            if process is not survivor:
                assert await process.process.wait() == 1
                bench.forget(process)


@pytest.mark.fault(
    "A worker is killed (`kill -9`) when it has taken a request and has not heard of it.",
    "The request goes to another worker; nothing is lost.",
)
async def test_killed_behind_a_take(settings: Settings, tmp_path: Path, healing: Healing) -> None:
    async with open_bench(settings, tmp_path, workers=1) as bench:
        (frontend,), (victim,) = bench.frontends, bench.workers
        rule = bench.link(victim).on_reply(b"the-request", Then.DROP)
        async with bench.post(frontend, chat("some words"), "the-request") as stream:
            await rule.fired()
            healing.begins()
            await bench.kill(victim)
            await bench.worker()
            events = await stream.read()
            healing.is_over()
        assert (text_of(events), error_of(events)) == ("some words", None)
        assert (await bench.ended("the-request"))["attempt"] == "2"


@pytest.mark.fault(
    "The only worker of a model is killed (`kill -9`).",
    "Its requests without a token wait one more lease for another worker.",
)
async def test_the_only_worker_is_killed(make_settings: MakeSettings, tmp_path: Path, healing: Healing) -> None:
    gate = tmp_path / "gate"
    async with open_bench(make_settings(lease_secs=4.0), tmp_path, workers=0, settle_secs=20) as bench:
        worker = await bench.worker("gated", GATED)
        async with bench.post(bench.frontends[0], chat(f"{gate} 3 0", "gated"), "r1") as stream:
            await bench.status("r1", "running")
            healing.begins()
            await bench.kill(worker)
            await bench.status("r1", "queued")
            await bench.worker("gated", GATED)
            gate.touch()
            events = await stream.read()
            healing.is_over()
        assert (text_of(events), error_of(events)) == (numbers(3), None)
