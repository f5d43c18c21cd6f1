"""`lifecycle settings`: what the running cluster shares, and a change of it without a restart."""

from __future__ import annotations

import asyncio
import json
import sys

import pytest

from lifecycle.cli.main import run
from lifecycle.errors import ConfigurationConflict
from lifecycle.local.embedded_redis import EmbeddedRedis
from lifecycle.settings import as_environment
from tests.known_faults.core.replicas import frontend, quick_settings
from tests.waiting import wait_until


async def test_a_change_reaches_every_replica_within_a_heartbeat(capsys: pytest.CaptureFixture[str]) -> None:
    with EmbeddedRedis(port=0) as server:
        settings = quick_settings(server.url)
        async with frontend(settings) as first, frontend(settings) as second:
            assert await _lifecycle(server, "settings", "set", "LIFECYCLE_RETENTION_SECS", "77") == 0
            assert "LIFECYCLE_RETENTION_SECS=77" in capsys.readouterr().out

            def is_known() -> bool:
                return all(tracker.settings.retention_secs == 77 for tracker in (first, second))

            await wait_until(is_known, what="the new value at every replica")

            assert await _lifecycle(server, "settings", "--json") == 0
            assert json.loads(capsys.readouterr().out)["retention_secs"] == 77

            with pytest.raises(ConfigurationConflict):
                async with frontend(settings):
                    pass
            async with frontend(quick_settings(server.url, retention_secs=77.0)):
                pass


async def test_a_process_that_differs_exits_with_1_and_names_the_setting() -> None:
    with EmbeddedRedis(port=0) as server:
        async with frontend(quick_settings(server.url)):
            newcomer = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "lifecycle.cli.main", "worker", "--engine", "echo", "--model", "m"),
                env=as_environment(quick_settings(server.url, max_attempts=7)),
                stderr=asyncio.subprocess.PIPE,
            )
            _, said = await asyncio.wait_for(newcomer.communicate(), 60)
    assert newcomer.returncode == 1
    assert b"LIFECYCLE_MAX_ATTEMPTS=7 differs" in said


@pytest.mark.parametrize(
    ("name", "value", "named"),
    [("SHARDS", "3", "SHARDS"), ("RETENTION_SECS", "0", "RETENTION_SECS"), ("NOSUCH", "1", "NOSUCH")],
)
async def test_what_cannot_be_changed_is_refused(
    capsys: pytest.CaptureFixture[str], name: str, value: str, named: str
) -> None:
    with EmbeddedRedis(port=0) as server:
        async with frontend(quick_settings(server.url)):
            assert await _lifecycle(server, "settings", "set", name, value) == 2
            assert named in capsys.readouterr().err


async def test_a_cluster_that_has_not_begun_has_no_settings(capsys: pytest.CaptureFixture[str]) -> None:
    with EmbeddedRedis(port=0) as server:
        assert await _lifecycle(server, "settings") == 1
        assert "start one first" in capsys.readouterr().err


async def _lifecycle(server: EmbeddedRedis, *arguments: str) -> int:
    """Run a command in a thread: it has an event loop of its own."""
    return await asyncio.to_thread(run, [*arguments, "--redis-url", server.url])
