"""The command line on a running system: `lifecycle up` as a user starts it, and operators' commands against it."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from lifecycle.cli.main import run
from lifecycle.settings import Settings, as_environment
from lifecycle.store.results import NewRequest, Start
from lifecycle.store.transitions import Store
from lifecycle.types import CancelMode, Labels, RequestRecord, Role
from tests.conftest import MakeSettings, MakeStore
from tests.sse import Stream, error_of, text_of
from tests.waiting import wait_until

BOUND_SECS = 20.0
LIFECYCLE = [sys.executable, "-m", "lifecycle.cli.main"]
ROOT = Path(__file__).parents[2]


class Program:
    """A running command, with what it has printed so far."""

    def __init__(self, *arguments: str, **environment: str) -> None:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("LIFECYCLE_")}
        self.process = subprocess.Popen(
            [*LIFECYCLE, *arguments],
            cwd=ROOT,
            env=clean | environment,
            text=True,
            start_new_session=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self.printed = ""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        while text := os.read(self.process.stdout.fileno(), 65_536):
            self.printed += text.decode()

    def wait_for(self, condition: Callable[[], bool]) -> None:
        give_up_at = time.monotonic() + BOUND_SECS
        while not condition():
            assert self.process.poll() is None, self.printed
            assert time.monotonic() < give_up_at, self.printed
            time.sleep(0.02)

    def end(self, sig: signal.Signals) -> int:
        """The exit code, with everything printed."""
        self.process.send_signal(sig)
        return self.wait()

    def wait(self) -> int:
        code = self.process.wait(BOUND_SECS)
        self._reader.join(BOUND_SECS)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code


class Up(Program):
    """`lifecycle up`, once it says that it is ready; everything it prints for people to copy is taken from there."""

    def __init__(self, *arguments: str) -> None:
        super().__init__("up", "--port", "0", "--drain-timeout-secs", "1", *arguments)
        try:
            self.wait_for(lambda: "Ctrl-C stops everything" in self.printed)
        except AssertionError:
            self.end(signal.SIGTERM)
            raise
        self.urls = re.findall(r"^  (http://\S+)/$", self.printed, re.MULTILINE)
        self.redis_url = self._found(r"export LIFECYCLE_REDIS_URL='?([^'\s]+)")
        self.stream_url, self.body = self._found(r"curl -N (\S+)"), json.loads(self._found(r"-d '(\{.*\})'"))
        self.inflight_url = self._found(r"curl (http\S+/v1/inflight)")
        self.cancel_url = self._found(r"curl -X POST '(\S+)'").replace("demo-1", "{}")
        self.pids = [int(pid) for pid in re.findall(r"\(pid (\d+)\)", self.printed)]

    def _found(self, pattern: str) -> str:
        match = re.search(pattern, self.printed)
        assert match, self.printed
        return match[1]

    def still_running(self) -> list[int]:
        directory = Path(self.redis_url.removeprefix("unix://").partition("?")[0]).parent
        return [pid for pid in self.pids if Path(f"/proc/{pid}").exists()] + [0] * directory.exists()

    @asynccontextmanager
    async def stream(self, rid: str, **fields: Any) -> AsyncIterator[tuple[httpx2.AsyncClient, Stream]]:
        """The printed `curl -N`, under an id of its own."""
        headers = {"X-Request-Id": rid}
        async with (
            httpx2.AsyncClient(timeout=BOUND_SECS, trust_env=False) as http,
            http.stream("POST", self.stream_url, json=self.body | fields, headers=headers) as response,
        ):
            yield http, Stream(response)


@pytest.fixture(scope="module")
def up() -> Iterator[Up]:
    up = Up()
    yield up
    up.end(signal.SIGTERM)
    assert up.still_running() == []


class Operator:
    """Runs commands in this process, on a server and namespace."""

    def __init__(self, capsys: pytest.CaptureFixture[str], *flags: str) -> None:
        self._capsys = capsys
        self._flags = flags

    async def __call__(self, *arguments: str) -> tuple[int, str, str]:
        """Exit code, standard output, standard error."""
        code = await asyncio.to_thread(run, [*arguments, *self._flags])
        return code, *self._capsys.readouterr()

    async def json(self, *arguments: str) -> Any:
        code, out, err = await self(*arguments, "--json")
        assert (code, err) == (0, "")
        return json.loads(out)


@pytest.fixture
def on_up(up: Up, capsys: pytest.CaptureFixture[str]) -> Operator:
    return Operator(capsys, "--redis-url", up.redis_url)


@pytest.fixture
def on_store(settings: Settings, capsys: pytest.CaptureFixture[str]) -> Operator:
    return Operator(capsys, "--redis-url", settings.redis_url, "--namespace", settings.namespace)


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


async def test_ctrl_c_ends_everything_even_with_a_stream_open() -> None:
    up = await asyncio.to_thread(Up, "--frontends", "1", "--workers", "1")
    async with up.stream("open") as (_, stream):
        await stream.read_tokens(1)
        ending = asyncio.create_task(asyncio.to_thread(up.end, signal.SIGINT))
        events = await stream.read()
        assert events[-1].data == "[DONE]"
        assert await ending == 130
    assert up.still_running() == []


async def test_a_worker_drains_on_a_signal(make_settings: MakeSettings, on_store: Operator) -> None:
    settings = make_settings(drain_timeout_secs=1.0)
    workers = [Program("worker", "--model", "m", "--engine", "echo", **as_environment(settings)) for _ in range(2)]
    try:

        async def joined() -> bool:
            return len((await on_store.json("replicas"))["data"]) == len(workers)

        await wait_until(joined, timeout=BOUND_SECS)
        other = make_settings(lease_secs=9.0)
        odd = Program("worker", "--model", "m", "--engine", "echo", **as_environment(other))
        assert await asyncio.to_thread(odd.wait) == 2
        assert "LIFECYCLE_LEASE_SECS=9" in odd.printed
        assert odd.printed.count("\n") == 1
    finally:
        codes = [worker.end(sig) for worker, sig in zip(workers, (signal.SIGTERM, signal.SIGINT), strict=True)]
    assert codes == [0, 130]
    assert (await on_store.json("replicas"))["data"] == []


async def admitted(store: Store, rid: str, *, running: bool = False) -> RequestRecord:
    """A request of a frontend, and a worker, that do nothing more for it."""
    await store.heartbeat("f", Role.FRONTEND, {}, [])
    await store.admit(NewRequest(rid, "nonce", Labels("m", "completions", "stream"), "f", b"{}", "cancel"))
    if running:
        await store.heartbeat("w", Role.WORKER, {}, ["m"])
        record = store.keys.prefix_of(rid) + "request:" + rid
        entry = (await store.command("HGET", record, "entry")).decode()
        assert isinstance(await store.start(rid, "w", "queue", "m", entry), Start)
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
        "nosuch: no such request; it is unknown or its record has expired\n",
    )
    assert await on_store("tail", "nosuch") == (
        1,
        "",
        "nosuch: no such request; it is unknown or its record has expired\n",
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
    await admitted(store, "orphan", running=True)
    await store.command("ZREM", store.keys.control + "workers", "w")  # forgotten, where a reaper would have buried it
    await store.command("ZADD", store.keys.prefix_of("x") + "expiries", 1, "long ago")

    async def all_seen() -> dict[str, Any]:
        for role, name in ((Role.FRONTEND, "new-f"), (Role.WORKER, "new-w")):
            await store.heartbeat(name, role, {"version": "0.0.1" if role is Role.WORKER else "0.0.2"}, ["m"])
        _, out, _ = await on_store("doctor", "--json")
        found = {finding["check"]: finding for finding in json.loads(out)["findings"]}
        return found if found["cancels"]["level"] == "fail" else {}

    found = await wait_until(all_seen, timeout=BOUND_SECS)
    assert "stubborn" in found["cancels"]["message"]
    assert "restart w" in found["cancels"]["advice"]
    assert found["orphans"]["level"] == "fail"
    assert "orphan" in found["orphans"]["message"]
    assert (found["sweeps"]["level"], found["sweeps"]["message"].split()[0]) == ("warn", "1")
    assert found["versions"]["level"] == "warn"
    assert "0.0.1: new-w; 0.0.2: new-f" in found["versions"]["message"]
    assert "(stubborn)" in found["inflight"]["message"]
    assert all(finding["advice"] for finding in found.values() if finding["level"] != "ok")
    await store.command("ZADD", store.keys.control + "workers", 1, "w")  # so that its keys have their owner again
