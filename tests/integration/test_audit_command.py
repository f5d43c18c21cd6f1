"""`python -m tests.chaos.audit` against a real cluster, and against one whose answers something alters on their way."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import pytest

from lifecycle.settings import Settings
from tests.cluster import ROOT, Cluster, running

_SECS = 3.0
_BOUND_SECS = 60.0

Alter = Callable[[bytes], bytes]


class _Run(NamedTuple):
    status: int
    output: str


async def _audit(*argv: str) -> _Run:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.chaos.audit",
        *argv,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": os.fspath(ROOT)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(_BOUND_SECS):
            output, _ = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        raise AssertionError(f"the audit did not end within {_BOUND_SECS:g} s") from None
    assert process.returncode is not None
    return _Run(process.returncode, output.decode())


@asynccontextmanager
async def _altering_proxy(url: str, alter: Alter) -> AsyncIterator[str]:
    """Run a TCP proxy before a frontend that alters what it answers, chunk by chunk."""
    target = urlsplit(url)
    tasks: set[asyncio.Task[None]] = set()

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, change: Alter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(change(data))
                await writer.drain()
        except ConnectionError:
            pass  # the other side is closed below, so each learns that the other has gone
        finally:
            writer.close()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_connection(target.hostname, target.port)
        for task in (
            asyncio.create_task(pass_on(reader, inner_writer, bytes)),
            asyncio.create_task(pass_on(inner_reader, writer, alter)),
        ):
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in tuple(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def _two_frontends(settings: Settings, directory: Path) -> AsyncIterator[Cluster]:
    settings = settings.model_copy(update={"echo_tokens_per_sec": 50.0})
    async with running(settings, directory, frontends=2, workers=1) as cluster:
        await cluster.worker("signed", "tests.chaos.engines:signed")
        yield cluster


async def test_a_cluster_that_keeps_its_promises(settings: Settings, tmp_path: Path) -> None:
    async with _two_frontends(settings, tmp_path) as cluster:
        urls = [frontend.url for frontend in cluster.frontends]
        history = str(tmp_path / "history.jsonl")
        echo = await _audit(*urls, "--model", "echo", "--secs", str(_SECS), "--history", history)
        signed = await _audit(*urls, "--model", "signed", "--text", "signed", "--secs", str(_SECS), "--seed", "2")
    for run in (echo, signed):
        assert run.status == 0, run.output
        assert "violations: 0" in run.output
        assert re.search(r"\d+ s: \d+ requests, \d+ calls", run.output), "no progress was shown"
    again = await _audit("--check", history)
    assert (again.status, "violations: 0" in again.output) == (0, True), again.output


def _of_another_run(data: bytes) -> bytes:
    """Put another run's signature into the third token of each answer; the length stays."""
    return re.sub(rb'"2@1\.[0-9a-fx]{4}', b'"2@1.beef', data)


def _one_inflight_more(data: bytes) -> bytes:
    return re.sub(rb'("object":"inflight","total":)\d', rb"\g<1>9", data)


def _not_cancelled(data: bytes) -> bytes:
    return data.replace(b'"status":"cancelled"', b'"status":"completed"')


@pytest.mark.parametrize(
    ("alter", "seen"),
    [
        (_of_another_run, "two runs of the engine are in one answer"),
        (_one_inflight_more, "is possible"),
        (_not_cancelled, "two ends"),
    ],
)
async def test_a_cluster_that_does_not(settings: Settings, tmp_path: Path, alter: Alter, seen: str) -> None:
    async with (
        _two_frontends(settings, tmp_path) as cluster,
        _altering_proxy(cluster.frontends[0].url, alter) as altered,
    ):
        run = await _audit(
            altered, cluster.frontends[1].url, "--model", "signed", "--text", "signed", "--secs", str(_SECS)
        )
    assert run.status == 1, run.output
    assert seen in run.output


async def test_a_cluster_whose_engine_always_fails(settings: Settings, tmp_path: Path) -> None:
    """Failures are honest answers, but a run of nothing else shows nothing."""
    async with _two_frontends(settings, tmp_path) as cluster:
        run = await _audit(cluster.frontends[0].url, "--model", "signed", "--text", "echo", "--secs", "1")
    assert run.status == 1, run.output
    assert "no request has completed" in run.output


async def test_a_url_may_be_written_as_one_writes_it(settings: Settings, tmp_path: Path) -> None:
    """Without a scheme, and as the base URL of a client library."""
    async with _two_frontends(settings, tmp_path) as cluster:
        a, b = (frontend.url for frontend in cluster.frontends)
        run = await _audit(a.removeprefix("http://"), f"{b}/v1/", "--model", "echo", "--secs", "1")
    assert run.status == 0, run.output


async def test_what_cannot_be_audited_is_one_line(settings: Settings, tmp_path: Path) -> None:
    async with running(settings, tmp_path) as cluster:
        url = cluster.frontends[0].url
        for argv, says in (
            ([url, "http://127.0.0.1:9", "--secs", "1"], "http://127.0.0.1:9 cannot be called: "),
            ([url, "--model", "nosuch", "--secs", "1"], "the model 'nosuch' is not served; these are: echo"),
            ([f"{url}/docs", "--secs", "1"], f"{url}/docs/v1/models answered 404; is this the URL of a frontend?"),
        ):
            run = await _audit(*argv)
            assert (run.status, run.output.count("\n")) == (2, 1), run.output
            assert says in run.output


async def test_wrong_usage() -> None:
    for argv in ([], ["http://127.0.0.1:9", "--secs", "0"], ["http://127.0.0.1:9", "--concurrency", "0"]):
        run = await _audit(*argv)
        assert run.status == 2
        assert "error: " in run.output


async def test_an_interrupted_audit_says_what_it_has_seen(settings: Settings, tmp_path: Path) -> None:
    async with _two_frontends(settings, tmp_path) as cluster:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.chaos.audit", cluster.frontends[0].url, "--model", "echo"),
            cwd=ROOT,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        assert process.stdout is not None
        async with asyncio.timeout(_BOUND_SECS):
            assert b" requests, " in await process.stdout.readline()
            process.send_signal(signal.SIGINT)
            output = (await process.stdout.read()).decode()
            assert await process.wait() == 130
        assert "violations: 0" in output
        assert "Traceback" not in output
