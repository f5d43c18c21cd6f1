"""`lifecycle up` must start in odd surroundings, and say in one line why it cannot when a port is in use.

A TMPDIR that is too long for a socket or not there, a HOME that is not there, a dumb terminal, `python -OO`.
Source: LMCache/LMCache#3529, verl-project/verl#1120, broadinstitute/cromwell#3647.
"""

from __future__ import annotations

import asyncio
import signal
import socket
from pathlib import Path

import httpx2
import pytest

from lifecycle.local.redis_process import free_port
from tests.cluster import START_SECS, Process
from tests.known_faults.reports.kit import chat, clean_environment, ended, run_lifecycle, spawn
from tests.waiting import wait_until


async def up(tmp_path: Path, port: int, env: dict[str, str], frontends: int = 1) -> Process:
    argv = ("up", "--port", str(port), "--frontends", str(frontends), "--workers", "1")
    return await spawn(*argv, log=tmp_path / "up.log", env=clean_environment(env), cwd=tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("case", ["a long TMPDIR, no HOME, a dumb terminal", "no TMPDIR"])
async def test_up_serves(tmp_path: Path, case: str) -> None:
    long = tmp_path / ("d" * 120)
    long.mkdir()
    env = {
        "a long TMPDIR, no HOME, a dumb terminal": {"TMPDIR": str(long), "HOME": "/nonexistent", "TERM": "dumb"},
        "no TMPDIR": {"TMPDIR": "/nonexistent"},
    }[case]
    port = free_port()
    process = await up(tmp_path, port, env)
    try:
        async with httpx2.AsyncClient(trust_env=False) as http:

            async def serves() -> bool:
                assert process.process.returncode is None, process.log.read_text()
                url = f"http://127.0.0.1:{port}/v1/chat/completions"
                try:
                    return (await http.post(url, json=chat("echo"))).status_code == 200
                except httpx2.TransportError:
                    return False

            await wait_until(serves, timeout=START_SECS, what="`up` that serves")
        process.signal(signal.SIGINT)
        await ended(process)
    finally:
        if process.process.returncode is None:
            process.signal(signal.SIGTERM)
            async with asyncio.timeout(20):
                await process.process.wait()


def is_free(port: int) -> bool:
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


def taken_port_behind_a_free_one() -> socket.socket:
    """Return a socket that listens on a port whose predecessor is free."""
    while True:
        taken = socket.create_server(("127.0.0.1", 0))
        if is_free(taken.getsockname()[1] - 1):
            return taken
        taken.close()


async def test_the_second_of_two_ports_in_use_is_one_line(tmp_path: Path) -> None:
    with taken_port_behind_a_free_one() as taken:
        port = taken.getsockname()[1]
        process = await up(tmp_path, port - 1, {}, frontends=2)
        code, said = await ended(process), process.log.read_text().strip()
    assert (code, len(said.splitlines())) == (1, 1), said
    assert str(port) in said


async def test_help_without_docstrings() -> None:
    assert "doctor" in await run_lifecycle("--help", env={"PYTHONOPTIMIZE": "2"})
