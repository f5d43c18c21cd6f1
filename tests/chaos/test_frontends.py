"""A frontend dies or hangs while clients wait for it, and others for its requests."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path

import httpx2
import pytest

from lifecycle.settings import Settings
from tests.chaos.bench import Bench, open_bench
from tests.chaos.engines import numbers
from tests.chaos.faults import Healing
from tests.chaos.proxy import Then, script
from tests.chaos.signatures import text_of
from tests.cluster import Process
from tests.conftest import MakeSettings
from tests.sse import Stream, chat, error_of
from tests.waiting import wait_until

WORDS = " ".join(f"w{number}" for number in range(60))


async def _breaks_off(stream: Stream) -> None:
    with suppress(httpx2.TransportError):
        await stream.read()
    assert not stream.ended


@pytest.mark.leaves_inflight
@pytest.mark.fault(
    "A frontend is killed (`kill -9`) while no reaper runs anywhere.",
    "Its part of every count disappears within one lease.",
)
async def test_counts_without_a_reaper(make_settings: MakeSettings, tmp_path: Path, healing: Healing) -> None:
    settings = make_settings(lease_secs=2.0, sweep_secs=3600.0, echo_tokens_per_sec=5.0)
    async with open_bench(settings, tmp_path, frontends=2, consequences_secs=None, leaves_inflight=True) as bench:
        dying, other = bench.frontends
        async with (
            bench.post(dying, chat(WORDS), "r1") as lost,
            bench.post(other, chat("x " * 500), "r2") as kept,
        ):
            await lost.read_tokens(1)
            await kept.read_tokens(1)
            assert await bench.inflight(other) == 2
            healing.begins()
            await bench.kill(dying)

            async def right() -> bool:
                return await bench.inflight(other) == 1

            await wait_until(right, timeout=settings.lease_secs + 5)
            healing.is_over()
            assert (await bench.status("r1", "running"))["status"] == "running"  # nobody has drawn a consequence
            await _breaks_off(lost)
            await bench.http.post(other.url + "/v1/requests/r2/cancel", json={"mode": "stop"})
            assert error_of(await kept.read()) is None


@pytest.mark.fault(
    "A frontend is killed (`kill -9`).",
    "Its requests end with `frontend_lost` and their engines stop; requests of other frontends continue.",
)
async def test_killed_with_its_clients(steady: Settings, tmp_path: Path, healing: Healing) -> None:
    gate = tmp_path / "gate"
    gate.touch()
    async with open_bench(steady, tmp_path, frontends=2, workers=0) as bench:
        await bench.worker("gated", "tests.chaos.engines:gated")
        await bench.worker("idle", "tests.chaos.engines:idle")  # no refused token tells it
        dying, other = bench.frontends
        async with (
            bench.post(dying, chat(str(tmp_path / "ends"), "idle"), "r1") as lost,
            bench.post(other, chat(f"{gate} 150 0.02", "gated"), "r2") as kept,
        ):
            await lost.read_tokens(1)
            await kept.read_tokens(3)
            healing.begins()
            await bench.kill(dying)
            await _breaks_off(lost)
            record = await bench.ended("r1")
            assert (record["status"], record["error_type"]) == ("failed", "frontend_lost")
            await wait_until((tmp_path / "ends").exists)
            healing.is_over()
            events = await kept.read()
        assert (text_of(events), error_of(events)) == (numbers(150), None)
        async with bench.resume(other, "r1") as stream:  # what it said is still there, with the reason of its end
            error = error_of(await stream.read())
        assert error is not None
        assert error["error_type"] == "frontend_lost"


@pytest.mark.fault(
    "A frontend is killed (`kill -9`) with a request that has a child, and a grandchild, at another frontend.",
    "The parent ends with `frontend_lost`, and the other two are cancelled; the engines of all stop.",
)
async def test_killed_with_a_parent(steady: Settings, tmp_path: Path, healing: Healing) -> None:
    async with open_bench(steady, tmp_path, frontends=2, workers=0) as bench:
        await bench.worker("idle", "tests.chaos.engines:idle")
        dying, other = bench.frontends
        ends, headers = tmp_path / "ends", {"X_On_Disconnect": "continue"}
        async with (
            bench.post(dying, chat(str(ends), "idle"), "top") as lost,
            bench.post(other, chat(str(ends), "idle"), "child", X_Parent_Request_Id="top", **headers) as child,
            bench.post(other, chat(str(ends), "idle"), "grandchild", X_Parent_Request_Id="child", **headers) as last,
        ):
            for stream in (lost, child, last):
                await stream.read_tokens(1)
            healing.begins()
            await bench.kill(dying)
            await _breaks_off(lost)
            assert (await bench.ended("top"))["error_type"] == "frontend_lost"
            for rid, stream in (("child", child), ("grandchild", last)):
                error = error_of(await stream.read())
                assert error is not None
                assert error["error_type"] == "cancelled"
                assert (await bench.ended(rid))["status"] == "cancelled"
            await wait_until(lambda: ends.exists() and len(ends.read_text().split()) == 3)
            healing.is_over()


@pytest.mark.fault(
    "A frontend is killed (`kill -9`), and its client repeats the call at another one with the same `Idempotency-Key`.",
    "There is one request: the repeated call attaches to it and receives the complete text.",
)
async def test_a_call_repeated_elsewhere(steady: Settings, tmp_path: Path, healing: Healing) -> None:
    async with open_bench(steady, tmp_path, frontends=2) as bench:
        dying, other = bench.frontends
        async with bench.post(dying, chat(WORDS), "r1", Idempotency_Key="k") as stream:
            await stream.read_tokens(5)
            healing.begins()
            await bench.kill(dying)
            await _breaks_off(stream)
        async with bench.post(other, chat(WORDS), "r2", Idempotency_Key="k") as again:
            assert again.response.headers["x-request-id"] == "r1"
            await again.read_tokens(1)
            healing.is_over()
            await again.read()
            assert (text_of(again.events), error_of(again.events)) == (WORDS, None)
        assert (await bench.ended("r1"))["attempt"] == "1"
        await bench.quiet()


@pytest.mark.fault(
    "A frontend with a request under `X-On-Disconnect: continue` is killed (`kill -9`).",
    "The request is reassigned to a new owner and can be read there to its end, with the complete text.",
)
async def test_what_continues_is_inherited(steady: Settings, tmp_path: Path, healing: Healing) -> None:
    async with open_bench(steady, tmp_path, frontends=2) as bench:
        dying, survivor = bench.frontends
        async with bench.post(dying, chat(WORDS), "r1", X_On_Disconnect="continue") as stream:
            before = await stream.read_tokens(5)
            healing.begins()
            await bench.kill(dying)
            await _breaks_off(stream)
        before += text_of([event for event in stream.events if event.id][5:])
        last = [event.id for event in stream.events if event.id][-1]
        name = (await bench.get("/health", survivor))["frontend"]

        async def inherited() -> bool:
            return bool((await bench.status("r1", "running", "completed"))["frontend"] == name)

        await wait_until(inherited)
        healing.is_over()
        async with bench.resume(survivor, "r1", last or "") as rest:
            assert before + text_of(await rest.read()) == WORDS
        await bench.quiet()
        assert await bench.metric("lifecycle_inflight_requests", survivor) == 0


@pytest.mark.fault(
    "A call is refused at a frontend that does not reach Redis, repeated at another one under the same id, and that "
    "one is killed (`kill -9`).",
    "The first one takes the request over and lets it go on: the call that it refused is not this one.",
)
async def test_a_refused_call_is_inherited_after_its_repetition(
    make_settings: MakeSettings, tmp_path: Path, healing: Healing
) -> None:
    settings = make_settings(lease_secs=4.0, echo_tokens_per_sec=8.0)
    async with open_bench(settings, tmp_path, frontends=2) as bench:
        dying, survivor = bench.frontends
        link = bench.link(survivor)
        lost = link.on_request(script("admit"), Then.LOSE, times=100)
        async with bench.post(survivor, chat(WORDS), "r1") as refused:
            assert refused.response.status_code == 503
        assert lost.count
        async with bench.post(dying, chat(WORDS), "r1", X_On_Disconnect="continue") as stream:
            await stream.read_tokens(2)
            link.requests.remove(lost)
            name = await wait_until(lambda: _name_of(bench, survivor), what="a frontend that reaches Redis again")
            healing.begins()
            await bench.kill(dying)
            await _breaks_off(stream)

        async def inherited() -> bool:
            return bool((await bench.status("r1", "running", "completed"))["frontend"].startswith(name))

        await wait_until(inherited)
        healing.is_over()
        async with bench.resume(survivor, "r1") as rest:
            assert (text_of(await rest.read()), error_of(rest.events)) == (WORDS, None)
        await bench.quiet()


@pytest.mark.fault(
    "A frontend is killed (`kill -9`) while another frontend has a reader of its request.",
    "The reader keeps the request alive and reads the complete text.",
)
async def test_a_reader_elsewhere_keeps_it_alive(steady: Settings, tmp_path: Path, healing: Healing) -> None:
    async with open_bench(steady, tmp_path, frontends=3) as bench:
        dying, other, _ = bench.frontends
        async with bench.post(dying, chat(WORDS), "r1") as stream:
            await stream.read_tokens(3)
            async with bench.resume(other, "r1") as reader:
                await reader.read_tokens(3)
                healing.begins()
                await bench.kill(dying)
                name = (await bench.get("/health", other))["frontend"]

                async def owned() -> bool:
                    return bool((await bench.status("r1", "running", "completed"))["frontend"] == name)

                await wait_until(owned)
                healing.is_over()
                events = await reader.read()
            await _breaks_off(stream)
        assert (text_of(events), error_of(events)) == (WORDS, None)


@pytest.mark.fault(
    "A frontend is stopped with SIGSTOP for longer than its lease and continued with SIGCONT.",
    "It is expired; when it continues, its streams end with an error frame and it serves again under a new id.",
)
async def test_frozen_beyond_its_lease(settings: Settings, tmp_path: Path, healing: Healing) -> None:
    async with open_bench(settings, tmp_path, frontends=2) as bench:
        frozen, other = bench.frontends
        was = await bench.ids(frozen)
        async with (
            bench.post(frozen, chat("x " * 5000), "r1") as dies,
            bench.post(frozen, chat(WORDS), "r2", X_On_Disconnect="continue") as lives,
        ):
            await dies.read_tokens(2)
            await lives.read_tokens(2)
            bench.freeze(frozen)
            record = await bench.ended("r1")
            assert (record["status"], record["error_type"]) == ("failed", "frontend_lost")
            healing.begins()
            bench.thaw(frozen)
            errors = [error_of(events) for events in await asyncio.gather(dies.read(), lives.read())]
            await bench.comes_back(frozen, was)
            healing.is_over()
        assert [error and error["error_type"] for error in errors] == ["frontend_lost", "frontend_lost"]
        async with bench.resume(other, "r2") as stream:
            assert text_of(await stream.read()) == WORDS
        async with bench.post(frozen, chat("a b c"), "r3") as stream:
            events = await stream.read()
        assert (text_of(events), error_of(events)) == ("a b c", None)
        await bench.quiet()
        assert await bench.metric("lifecycle_inflight_requests", frozen) == 0


@pytest.mark.fault(
    "A frontend is stopped with SIGSTOP for less than its lease and continued with SIGCONT.",
    "Nothing is lost, and the streams continue behind the last token.",
)
async def test_frozen_below_its_lease(make_settings: MakeSettings, tmp_path: Path, healing: Healing) -> None:
    async with open_bench(make_settings(lease_secs=8.0), tmp_path, frontends=2) as bench:
        frozen, _ = bench.frontends
        was = await bench.ids(frozen)
        async with bench.post(frozen, chat(WORDS), "r1") as stream:
            await stream.read_tokens(2)
            healing.begins()
            bench.freeze(frozen)
            await bench.ended("r1")  # the worker does not wait for it
            bench.thaw(frozen)
            events = await stream.read()
            healing.is_over()
        assert (text_of(events), error_of(events)) == (WORDS, None)
        assert await bench.ids(frozen) == was


@pytest.mark.fault(
    "A frontend is stopped with SIGSTOP for longer than its lease, and another one takes its request over.",
    "The request is counted as ended once, whatever the first one finds when it continues.",
)
async def test_a_request_that_was_taken_over_counts_once(settings: Settings, tmp_path: Path, healing: Healing) -> None:
    gate = tmp_path / "gate"
    gate.touch()
    async with open_bench(settings, tmp_path, frontends=2, workers=0) as bench:
        await bench.worker("gated", "tests.chaos.engines:gated")
        frozen, other = bench.frontends
        was = await bench.ids(frozen)
        new_owner = (await bench.get("/health", other))["frontend"]
        async with bench.post(frozen, chat(f"{gate} 300 0.02", "gated"), "r1", X_On_Disconnect="continue") as stream:
            await stream.read_tokens(2)
            bench.freeze(frozen)

            async def is_taken_over() -> bool:
                return bool((await bench.status("r1", "running"))["frontend"] == new_owner)

            await wait_until(is_taken_over)
            bench.thaw(frozen)
            healing.begins()
            await bench.comes_back(frozen, was)
            await stream.read()
        assert (await bench.ended("r1"))["status"] == "completed"
        await bench.quiet()

        async def is_counted() -> bool:
            return await _ended(bench, frozen) + await _ended(bench, other) > 0

        await wait_until(is_counted)
        healing.is_over()
        assert (await _ended(bench, frozen), await _ended(bench, other)) == (0, 1)


async def _name_of(bench: Bench, frontend: Process) -> str:
    """Return the id of a frontend; '' while it does not reach Redis."""
    answer = await bench.http.get(frontend.url + "/health")
    return str(answer.json()["frontend"]) if answer.status_code == 200 else ""


async def _ended(bench: Bench, frontend: Process) -> float:
    return await bench.metric("lifecycle_requests_total", frontend)
