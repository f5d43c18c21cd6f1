"""Operators' commands on requests and replicas of a test, and replicas that are started by hand."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import pty
import select
import signal
import subprocess
import time
from typing import Any

import pytest

from lifecycle.ids import new_start_nonce
from lifecycle.settings import Settings, as_environment
from lifecycle.store.transitions import Store
from lifecycle.types import CancelMode, Labels, RequestRecord, Role
from tests.admitting import admit
from tests.conftest import MakeSettings, MakeStore
from tests.joining import join
from tests.programs import BOUND_SECS, LIFECYCLE, ROOT, Operator, Program
from tests.waiting import wait_until

UNKNOWN = "nosuch: no such request; it is unknown or its record has expired\n"


@pytest.fixture
def on_store(settings: Settings, capsys: pytest.CaptureFixture[str]) -> Operator:
    return Operator(capsys, "--redis-url", settings.redis_url, "--namespace", settings.namespace)


async def test_a_worker_drains_on_a_signal(make_settings: MakeSettings, on_store: Operator) -> None:
    settings = make_settings(drain_timeout_secs=1.0)
    workers = [Program("worker", "--model", "m", "--engine", "echo", **as_environment(settings)) for _ in range(2)]
    try:

        async def joined() -> bool:
            return len((await on_store.json("replicas"))["data"]) == len(workers)

        await wait_until(joined, timeout=BOUND_SECS)
        other = make_settings(lease_secs=9.0)
        odd = Program("worker", "--model", "m", "--engine", "echo", **as_environment(other))
        assert await asyncio.to_thread(odd.wait) == 1
        assert "LIFECYCLE_LEASE_SECS=9" in odd.printed
        assert odd.printed.count("\n") == 1
    finally:
        codes = [worker.end(sig) for worker, sig in zip(workers, (signal.SIGTERM, signal.SIGINT), strict=True)]
    assert codes == [0, 130]
    assert (await on_store.json("replicas"))["data"] == []


_takes = itertools.count(1)


async def admitted(store: Store, rid: str, *, running: bool = False) -> RequestRecord:
    """A request of a frontend, and a worker, that do nothing more for it."""
    await join(store, "f", Role.FRONTEND, {}, [])
    await admit(store, rid, labels=Labels("m", "completions", "stream"), frontend="f")
    if running:
        await join(store, "w", Role.WORKER, {}, ["m"])
        taken = await store.take(store.keys.shard_of(rid), "w", next(_takes), new_start_nonce(), ["m"], 1)
        assert taken is not None
        assert [run.rid for run in taken.runs] == [rid]
    found = await store.read(rid)
    assert found is not None
    return found


async def test_cancelling_is_idempotent_and_an_unknown_id_fails(store: Store, on_store: Operator) -> None:
    await admitted(store, "r1")
    for _ in range(2):
        assert await on_store("cancel", "r1") == (0, "r1  cancelled\n", "")
    assert await on_store("cancel", "r1", "nosuch") == (
        1,
        "r1  cancelled\n",
        UNKNOWN,
    )
    assert await on_store("tail", "nosuch") == (
        1,
        "",
        UNKNOWN,
    )
    assert await on_store("tail", "r1") == (1, "", "cancelled: cancelled: Cancelled by an operator\n")


async def test_cancelling_what_requests_have_in_common(store: Store, on_store: Operator) -> None:
    for rid in ("r1", "r2", "r3"):
        await admitted(store, rid)
    assert await on_store("cancel", "--model", "nosuch") == (0, "0 matched, 0 cancellations requested\n", "")
    assert await on_store("cancel", "--model", "m", "--older-than", "1h") == (
        0,
        "0 matched, 0 cancellations requested\n",
        "",
    )
    code, out, err = await on_store("cancel", "--model", "m", "--dry-run")
    assert (code, err) == (0, "")
    head, *rows, last = out.splitlines()
    assert head.split()[:3] == ["ID", "MODEL", "ENDPOINT"]
    assert [row.split()[0] for row in rows] == ["r3", "r2", "r1"]
    assert last == "3 matched, nothing was cancelled (--dry-run)"
    code, out, err = await on_store("cancel", "--older-than", "0s", "--limit", "2", "--wait")
    assert (code, out.splitlines()[-1]) == (0, "2 matched, 2 cancellations requested")
    assert err == "More requests match; raise --limit, or run the command again\n"
    rest = await on_store.json("cancel", "--status", "queued", "--reason", "enough")
    assert [(r["id"], r["status"], r["error_message"]) for r in rest["data"]] == [("r1", "cancelled", "enough")]
    assert (rest["matched"], rest["requested"], rest["dry_run"]) == (1, 1, False)


@pytest.mark.leaves_inflight
async def test_a_cancel_that_no_worker_confirms(store: Store, on_store: Operator) -> None:
    await admitted(store, "r1", running=True)
    code, out, _ = await on_store("cancel", "r1")
    assert (code, out) == (0, "r1  kill requested, not confirmed yet\n")
    code, _, _ = await on_store("cancel", "r1", "--wait", "--timeout-secs", "0.1")
    assert code == 1
    _, out, _ = await on_store("ps")
    assert "running (kill)" in out


@pytest.mark.leaves_inflight
async def test_top_shows_the_oldest(store: Store, on_store: Operator) -> None:
    for rid in ("r1", "r2", "r3"):
        await admitted(store, rid)
    for flags, ids in (("--limit 2", ["r1", "r2"]), ("--match m", ["r1", "r2", "r3"]), ("--match other", [])):
        assert [r["id"] for r in (await on_store.json("top", *flags.split()))["requests"]] == ids


@pytest.mark.leaves_inflight
async def test_top_on_a_terminal_obeys_its_keys(store: Store, settings: Settings) -> None:
    await admitted(store, "r1", running=True)
    ours, theirs = pty.openpty()
    flags = ["--redis-url", settings.redis_url, "--namespace", settings.namespace, "--interval-secs", "0.2"]
    top = subprocess.Popen(
        [*LIFECYCLE, "top", *flags],
        cwd=ROOT,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        env={**os.environ, "COLUMNS": "160", "LINES": "40", "TERM": "xterm"},
    )
    os.close(theirs)
    seen = b""

    def until(text: bytes) -> None:
        nonlocal seen
        give_up_at = time.monotonic() + BOUND_SECS
        while text not in seen:
            assert time.monotonic() < give_up_at, seen
            if select.select([ours], [], [], 0.2)[0]:
                seen += os.read(ours, 65_536)

    def work() -> int:
        until(b"by age")
        until(b"r1 ")
        os.write(ours, b"s")
        until(b"by silence")
        os.write(ours, b"q")
        until(b"\x1b[?1049l")  # it leaves the terminal as it was
        return top.wait(BOUND_SECS)

    try:
        assert await asyncio.to_thread(work) == 0
    finally:
        top.kill()
        top.wait()
        os.close(ours)


@pytest.mark.leaves_inflight
async def test_doctor_sees_the_forgotten(store: Store, on_store: Operator) -> None:
    await admitted(store, "r1", running=True)
    stray = f"{store.settings.namespace}:{{0}}:stray"
    await store.command("SET", stray, "1")

    async def both_expired() -> dict[str, Any]:
        _, out, _ = await on_store("doctor", "--json")
        found = {finding["check"]: finding for finding in json.loads(out)["findings"]}
        return found if all(name in found["leases"]["message"] for name in ("f (", "w (")) else {}

    found = await wait_until(both_expired, timeout=BOUND_SECS)
    assert found["leases"]["level"] == "warn"
    assert "start one" in found["leases"]["advice"]
    assert found["frontends"]["level"] == "warn"
    assert stray in found["keys"]["message"]
    await store.command("UNLINK", stray)


@pytest.mark.leaves_inflight
async def test_doctor_sees_what_nobody_deals_with(
    make_store: MakeStore, make_settings: MakeSettings, on_store: Operator
) -> None:
    """No replica runs here, so nothing is reaped, swept or confirmed."""
    store = make_store(make_settings(retention_secs=30.0))
    await admitted(store, "stubborn", running=True)
    await store.cancel("stubborn", CancelMode.KILL, "enough")
    await admitted(store, "forgotten", running=True)
    await store.command("ZREM", store.keys.prefixes[0] + "workers", "w")  # removed without a cleanup
    await store.command("ZADD", store.keys.prefix_of("x") + "expiries", 1, "long ago")

    async def all_seen() -> dict[str, Any]:
        for role, name in ((Role.FRONTEND, "new-f"), (Role.WORKER, "new-w")):
            await join(store, name, role, {"version": "0.0.1" if role is Role.WORKER else "0.0.2"}, ["m"])
        _, out, _ = await on_store("doctor", "--json")
        found = {finding["check"]: finding for finding in json.loads(out)["findings"]}
        return found if found["cancels"]["level"] == "fail" else {}

    found = await wait_until(all_seen, timeout=BOUND_SECS)
    assert "stubborn" in found["cancels"]["message"]
    assert "restart w" in found["cancels"]["advice"]
    assert found["orphans"]["level"] == "warn"
    assert "end them within" in found["orphans"]["advice"]
    assert "forgotten" in found["orphans"]["message"]
    assert (found["sweeps"]["level"], found["sweeps"]["message"].split()[0]) == ("warn", "1")
    assert found["versions"]["level"] == "warn"
    assert "0.0.1: new-w; 0.0.2: new-f" in found["versions"]["message"]
    assert "(stubborn)" in found["inflight"]["message"]
    assert all(finding["advice"] for finding in found.values() if finding["level"] != "ok")
    await store.command("ZADD", store.keys.prefixes[0] + "workers", 1, "w")  # so that its keys have their owner again
