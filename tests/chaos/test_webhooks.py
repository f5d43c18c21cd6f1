"""Webhooks arrive although what delivers them dies or loses Redis."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from lifecycle.settings import Settings
from tests.chaos.bench import Bench, open_bench
from tests.chaos.faults import Healing
from tests.chaos.proxy import Then
from tests.cluster import Process
from tests.conftest import MakeSettings
from tests.receiver import SECRET, Receiver, receiving
from tests.waiting import wait_until


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as receiver:
        yield receiver


@pytest.fixture
def webhooks(make_settings: MakeSettings) -> Settings:
    """Return settings under which a claim lapses after two seconds, and long leases."""
    return make_settings(
        lease_secs=8.0,
        redis_timeout_secs=0.5,
        echo_tokens_per_sec=0.0,
        webhook_hosts="127.0.0.1",
        webhook_secret=SECRET,
        webhook_private_addresses=True,
        webhook_retry_secs=0.1,
        webhook_timeout_secs=1.0,
    )


async def _ask(bench: Bench, rid: str, url: str) -> None:
    body: dict[str, Any] = {"model": "echo", "messages": [{"role": "user", "content": "one two"}]}
    headers = {"X-Request-Id": rid, "X-Webhook-Url": url}
    answer = await bench.http.post(bench.frontends[0].url + "/v1/chat/completions", json=body, headers=headers)
    assert answer.status_code == 200, answer.text


def _process_with(port: int, processes: Sequence[Process]) -> Process:
    """The process that has the connection from this port of the machine."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    (inode,) = [row[9] for row in rows if int(row[1].partition(":")[2], 16) == port and row[9] != "0"]
    for process in processes:
        for descriptor in Path(f"/proc/{process.pid}/fd").iterdir():
            if descriptor.is_symlink() and str(descriptor.readlink()) == f"socket:[{inode}]":
                return process
    raise AssertionError(f"no process has the port {port}")


async def _nothing_waits(bench: Bench) -> None:
    async def empty() -> bool:
        return not await bench.execute("ZCARD", bench.key("webhooks"))

    await wait_until(empty, timeout=15, what="an empty outbox")


def _once(receiver: Receiver) -> str:
    """Return the request that every call was about: all had the same event, with a valid signature."""
    (event,) = {(got.event_id, got.body, str(got.verified()["data"]["id"])) for got in receiver.calls}
    return event[2]


@pytest.mark.fault(
    "A frontend is killed (`kill -9`) while it delivers a webhook.",
    "Another frontend delivers it again, with the same id.",
)
async def test_killed_while_it_delivers(
    webhooks: Settings, receiver: Receiver, tmp_path: Path, healing: Healing
) -> None:
    receiver.holds = True
    async with open_bench(webhooks, tmp_path, frontends=2) as bench:
        await _ask(bench, "r1", receiver.url)
        (got,) = await receiver.got()
        healing.begins()
        await bench.kill(_process_with(got.port, bench.frontends))
        (survivor,) = bench.frontends
        receiver.release()
        await receiver.got(2)
        await _nothing_waits(bench)
        healing.is_over()
        assert _once(receiver) == "r1"
        assert await bench.metric("lifecycle_webhooks_total", survivor, result="delivered") == 1


@pytest.mark.fault(
    "The link between a frontend and Redis is cut while it delivers a webhook.",
    "It is delivered; because that could not be recorded it is delivered once more, with the same id.",
)
async def test_cut_while_it_delivers(webhooks: Settings, receiver: Receiver, tmp_path: Path, healing: Healing) -> None:
    receiver.holds = True
    async with open_bench(webhooks, tmp_path) as bench:
        (frontend,) = bench.frontends
        await _ask(bench, "r1", receiver.url)
        await receiver.got()
        healing.begins()
        bench.link(frontend).cut()
        receiver.release()
        await wait_until(lambda: "its delivery was not recorded" in frontend.log.read_text(), what="the log's line")
        bench.link(frontend).restore()
        await receiver.got(2)
        await _nothing_waits(bench)
        healing.is_over()
        assert _once(receiver) == "r1"


@pytest.mark.fault(
    "A frontend claims a webhook, and the reply of Redis is lost.",
    "The claim lapses, and the webhook is delivered.",
)
async def test_the_reply_to_a_claim_is_lost(
    webhooks: Settings, receiver: Receiver, tmp_path: Path, healing: Healing
) -> None:
    async with open_bench(webhooks, tmp_path) as bench:
        lost = bench.link(bench.frontends[0]).on_reply(b"evt_", Then.LOSE)
        healing.begins()
        await _ask(bench, "r1", receiver.url)
        await lost.fired()
        await receiver.got()
        await _nothing_waits(bench)
        healing.is_over()
        assert _once(receiver) == "r1"
        assert len(receiver.calls) == 1
