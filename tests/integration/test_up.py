"""`lifecycle up` as a user starts it, and operators' commands against the system that it runs."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Iterator

import pytest

from tests.known_faults.reports.upstream import DONE, STREAM_HEAD, Upstream, chunk
from tests.programs import Operator, Up
from tests.sse import error_of, text_of


@pytest.fixture(scope="module")
def up() -> Iterator[Up]:
    up = Up()
    yield up
    up.end(signal.SIGTERM)
    assert up.still_running() == []


@pytest.fixture
def on_up(up: Up, capsys: pytest.CaptureFixture[str]) -> Operator:
    return Operator(capsys, "--redis-url", up.redis_url)


async def test_what_up_prints_works_and_a_cancel_through_the_other_frontend(up: Up, on_up: Operator) -> None:
    assert len(set(up.urls)) == 2
    async with up.stream("printed") as (http, stream):
        assert await stream.read_tokens(3) == "The quick brown"
        assert (await http.get(up.inflight_url)).json()["running"] == 1
        assert not up.cancel_url.startswith(up.stream_url[:22])
        assert (await http.post(up.cancel_url.format("printed"))).json()["status"] == "cancelled"
        error = error_of(await stream.read())
        assert error is not None
        assert error["error_type"] == "cancelled"
    code, out, err = await on_up("tail", "printed")
    assert code == 1
    assert out.startswith("The quick brown")
    assert err == "cancelled: cancelled: Cancelled by request\n"


async def test_operators_see_and_cancel_what_runs(up: Up, on_up: Operator) -> None:
    replicas = (await on_up.json("replicas"))["data"]
    assert sorted(r["role"] for r in replicas) == ["frontend", "frontend", "worker", "worker"]
    assert {r["pid"] for r in replicas} == set(up.pids)
    async with up.stream("seen") as (_, stream):
        await stream.read_tokens(1)
        listed = await on_up.json("ps")
        assert [(r["id"], r["status"]) for r in listed["data"]] == [("seen", "running")]
        assert (await on_up.json("inflight"))["total"] == 1
        code, out, _ = await on_up("ps", "--model", "echo")
        assert code == 0
        assert [line.split()[0] for line in out.splitlines()] == ["ID", "seen"]
        snapshot = await on_up.json("top")
        assert [r["id"] for r in snapshot["requests"]] == ["seen"]
        cancelled = await on_up.json("cancel", "seen", "--wait", "--reason", "enough")
        assert [(r["status"], r["cancel_reason"]) for r in cancelled["data"]] == [("cancelled", "enough")]
        error = error_of(await stream.read())
        assert error is not None
        assert error["message"] == "enough"
    assert (await on_up.json("ps"))["data"] == []
    assert "seen" in {r["id"] for r in (await on_up.json("ps", "--status", "cancelled"))["data"]}


async def test_tail_follows_live_and_goes_on_behind_a_token(up: Up, on_up: Operator) -> None:
    async with up.stream("followed", echo_repeat=3) as (_, stream):
        await stream.read_tokens(1)
        code, out, err = await on_up("tail", "followed")
        whole = text_of(await stream.read())
    assert (code, out, err) == (0, whole, "")
    code, out, _ = await on_up("tail", "followed", "--after", "1-30")
    assert (code, out) == (0, " the lazy dog and runs on.")
    code, out, _ = await on_up("tail", "followed", "--after", "1-34", "--json")
    *tokens, end = map(json.loads, out.splitlines())
    assert tokens == [{"id": "1-35", "text": " runs"}, {"id": "1-36", "text": " on."}]
    assert (end["status"], end["finish_reason"], end["output_tokens"]) == ("completed", "stop", 36)


async def test_doctor_finds_nothing_that_fails(on_up: Operator) -> None:
    examined = await on_up.json("doctor")
    levels = {finding["check"]: finding["level"] for finding in examined["findings"]}
    assert examined["ok"]
    checks = (
        "redis",
        "version",
        "eviction",
        "workers",
        "leases",
        "keys",
        "versions",
        "clients",
        "inflight",
        "cancels",
        "orphans",
        "sweeps",
    )
    assert {levels[check] for check in checks} == {"ok"}


async def test_without_a_model_it_serves_what_the_upstream_lists() -> None:
    with Upstream() as upstream:
        upstream.play("hi", lambda call: [STREAM_HEAD, chunk({"content": "one"}, "stop"), DONE])
        up = await asyncio.to_thread(
            Up, "--frontends", "1", "--workers", "1", "--engine", "openai", "--upstream", upstream.url
        )
        async with up.stream("listed", messages=[{"role": "user", "content": "hi"}]) as (_, stream):
            assert up.body["model"] == "upstream"
            assert text_of(await stream.read()) == "one"
        assert await asyncio.to_thread(up.end, signal.SIGINT) == 130


async def test_several_models_can_be_named() -> None:
    up = await asyncio.to_thread(Up, "--frontends", "1", "--workers", "1", "--model", "first", "--model", "second")
    for model in ("first", "second"):
        async with up.stream(model, model=model, echo_repeat=1) as (_, stream):
            assert text_of(await stream.read()).startswith("The quick brown")
    assert await asyncio.to_thread(up.end, signal.SIGINT) == 130


async def test_ctrl_c_ends_everything_even_with_a_stream_open() -> None:
    up = await asyncio.to_thread(Up, "--frontends", "1", "--workers", "1")
    async with up.stream("open") as (_, stream):
        await stream.read_tokens(1)
        ending = asyncio.create_task(asyncio.to_thread(up.end, signal.SIGINT))
        events = await stream.read()
        assert events[-1].data == "[DONE]"
        assert await ending == 130
    assert up.still_running() == []
