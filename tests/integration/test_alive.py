"""The sign of life that probes look for: there while a replica runs, with or without Redis."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lifecycle.cli.main import run
from lifecycle.settings import Settings
from tests.cluster import running
from tests.waiting import wait_until

LONG_AGO = 1_000_000_000.0


async def test_a_replica_keeps_its_sign_of_life_fresh_and_takes_it_away(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alive = tmp_path / "alive"
    monkeypatch.setenv("LIFECYCLE_ALIVE_FILE", str(alive))
    async with running(settings, tmp_path, frontends=0, workers=0) as cluster:
        worker = await cluster.worker()
        await wait_until(alive.exists)
        os.utime(alive, (LONG_AGO, LONG_AGO))
        await wait_until(lambda: alive.stat().st_mtime > LONG_AGO)
        assert await worker.terminate() == 0
    assert not alive.exists()


def test_a_sign_of_life_that_cannot_be_given_stops_the_start_with_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "nowhere" / "alive"
    arguments = ["--model", "m", "--engine", "echo", "--redis-url", "redis://127.0.0.1:1/0", "--alive-file", str(path)]
    assert run(["worker", *arguments]) == 1
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"lifecycle: cannot write LIFECYCLE_ALIVE_FILE={path}: No such file or directory"
    )
