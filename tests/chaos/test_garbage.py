"""Foreign data appears in Redis: no replica fails because of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from lifecycle.settings import Settings
from tests.chaos.bench import Bench, open_bench
from tests.chaos.faults import Healing
from tests.chaos.signatures import text_of
from tests.sse import chat, error_of
from tests.waiting import wait_until

WORDS = " ".join(f"w{number}" for number in range(40))
NOT_A_MESSAGE = (
    b"",
    b"not json",
    b"\xff\xfe",
    b"null",
    b"5",
    b"[]",
    b"{}",
    b'{"type":5}',
    b'{"type":"cancel"}',
    b'{"type":"terminal"}',
    b'{"type":"unheard-of"}',
    b'{"type":"cancel","rid":"r1"}',
    b'{"type":"cancel","rid":"r1","mode":"x"}',
    b'{"type":"cancel","rid":["r1"],"mode":"kill"}',
    b'{"type":"cancel","rid":"r2","mode":"kill"}',
)
NOT_A_FRAME = (
    b"",
    b"not json",
    b"\xff\xfe",
    b"null",
    b"5",
    b"{}",
    b"[5]",
    b"[[]]",
    b'[["r1"]]',
    b'[["r1","1-1"]]',
    b'[["r1","x",["t"]]]',
    b'[["r1","0-0",{}]]',
    b'[["r1","0-0",{"type":"reassigned"}]]',
    b'[["r1","0-0",null]]',
    b'[["r1","0-0",{"type":"terminal"}]]',
    b'[["nobody","0-0",{"type":"started"}]]',
    b'[[["r1"],"1-1",["t"]]]',
    b'[["r1","0-0",{"type":"end"}]]',
)


@pytest.mark.fault(
    "Invalid messages arrive on a worker's channel.",
    "They are ignored; the request continues and can be cancelled.",
)
async def test_on_a_channel(calm: Settings, tmp_path: Path, healing: Healing) -> None:
    async with open_bench(calm, tmp_path) as bench:
        (frontend,) = bench.frontends
        replicas = [await bench.ids(process) for process in (frontend, *bench.workers)]
        async with bench.post(frontend, chat("x " * 5000), "r1") as stream:
            await stream.read_tokens(2)
            healing.begins()
            channel = bench.store.keys.worker_channel(*await bench.ids(bench.workers[0]))
            for message in NOT_A_MESSAGE:
                assert await bench.execute("PUBLISH", channel, message) == 1
            await stream.read_tokens(10)
            await bench.http.post(frontend.url + "/v1/requests/r1/cancel", json={"wait_ms": 10_000})
            await stream.read()
            healing.is_over()
        assert [await bench.ids(process) for process in (frontend, *bench.workers)] == replicas


_FLOW = "flow:0|0||echo"


async def _put(bench: Bench, *members: str | bytes) -> None:
    """Put members to the front of the only flow."""
    for member in members:
        await bench.execute("ZADD", bench.key(_FLOW), 0, member)
    await bench.execute("ZADD", bench.key("level:0|echo"), 0, "")
    await bench.execute("ZADD", bench.key("levels:echo"), 0, 0)


@pytest.mark.fault(
    "Invalid entries are added to a queue.",
    "They are dropped, and the requests queued behind them run.",
)
async def test_in_a_queue(calm: Settings, tmp_path: Path, healing: Healing) -> None:
    async with open_bench(calm, tmp_path) as bench:
        (frontend,) = bench.frontends
        replicas = [await bench.ids(process) for process in (frontend, *bench.workers)]
        healing.begins()
        await _put(bench, "nobody", b"\xff\xfe", "", "a b")
        async with bench.post(frontend, chat(WORDS), "r1") as stream:
            events = await stream.read()
        assert (text_of(events), error_of(events)) == (WORDS, None)

        async def gone() -> bool:
            return not await bench.execute("EXISTS", bench.key(_FLOW))

        await wait_until(gone)
        healing.is_over()
        assert [await bench.ids(process) for process in (frontend, *bench.workers)] == replicas


@pytest.mark.fault(
    "A request is in a queue twice.",
    "It runs once, and its second entry is dropped.",
)
async def test_a_duplicate_entry(calm: Settings, tmp_path: Path, healing: Healing) -> None:
    async with open_bench(calm, tmp_path, workers=2) as bench:
        (frontend,) = bench.frontends
        healing.begins()
        async with bench.post(frontend, chat(WORDS), "r1") as stream:
            await _put(bench, "r1")
            await stream.read_tokens(5)
            await _put(bench, "r1")
            events = await stream.read()
        await _put(bench, "r1")

        async def gone() -> bool:
            return not await bench.execute("EXISTS", bench.key(_FLOW))

        await wait_until(gone)
        healing.is_over()
        assert (text_of(events), error_of(events)) == (WORDS, None)
        assert (await bench.ended("r1"))["attempt"] == "1"


@pytest.mark.fault(
    "Invalid frames arrive in a frontend's inbox.",
    "They are ignored, and the readers receive every token.",
)
async def test_in_an_inbox(calm: Settings, tmp_path: Path, healing: Healing) -> None:
    async with open_bench(calm, tmp_path) as bench:
        (frontend,) = bench.frontends
        (name,) = replicas = await bench.ids(frontend)
        async with bench.post(frontend, chat(WORDS), "r1") as stream:
            await stream.read_tokens(2)
            healing.begins()
            for frame in NOT_A_FRAME:
                await bench.execute("SPUBLISH", bench.key("inbox:" + name), frame)
            events = await stream.read()
            healing.is_over()
        assert (text_of(events), error_of(events)) == (WORDS, None)
        assert await bench.ids(frontend) == replicas
