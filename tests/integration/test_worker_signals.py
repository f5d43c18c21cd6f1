"""Signals to a worker that runs requests."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import pytest

from lifecycle.settings import Settings
from tests.cluster import running
from tests.conftest import MakeSettings
from tests.sse import chat, error_of, post, text_of
from tests.waiting import wait_until

COUNT = "30 0.02"  # for the engine `paced`


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
async def test_a_worker_drains(make_settings: MakeSettings, tmp_path: Path, signum: signal.Signals) -> None:
    async with running(make_settings(drain_timeout_secs=20.0), tmp_path, workers=0) as cluster:
        worker = await cluster.worker("paced", "tests.engines:paced")
        async with post(cluster.http, cluster.frontends[0].url, chat(COUNT, "paced")) as stream:
            await stream.read_tokens(2)
            worker.signal(signum)
            events = await stream.read()
        assert (error_of(events), text_of(events)) == (None, "".join(f"{number} " for number in range(30)))
        async with asyncio.timeout(10):
            assert await worker.process.wait() == (130 if signum == signal.SIGINT else 0)


async def test_a_worker_that_nohup_has_started_ignores_sighup(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text("import signal\nsignal.signal(signal.SIGHUP, signal.SIG_IGN)\n")
    monkeypatch.setenv("CHAOS_WEAKENED", str(tmp_path))  # the first folder on the module path
    async with running(settings, tmp_path, workers=0) as cluster:
        worker = await cluster.worker("paced", "tests.engines:paced")
        async with post(cluster.http, cluster.frontends[0].url, chat(COUNT, "paced")) as stream:
            await stream.read_tokens(2)
            worker.signal(signal.SIGHUP)
            assert error_of(await stream.read()) is None
        shown = (await cluster.get("/v1/replicas"))["data"]
        assert [replica["state"] for replica in shown if replica["pid"] == worker.pid] == ["ready"]


async def test_a_third_signal_ends_a_worker_whose_loop_is_blocked(settings: Settings, tmp_path: Path) -> None:
    code = """
        import asyncio, time
        from pathlib import Path

        async def generate(request, context):
            yield "begun"
            await asyncio.sleep(0.01)
            Path("blocked").touch()
            while True:
                time.sleep(0.01)
    """
    (tmp_path / "endless.py").write_text("\n".join(line[8:] for line in code.splitlines()))
    async with running(settings, tmp_path, workers=0) as cluster:
        worker = await cluster.worker("m", "endless:generate")
        async with post(cluster.http, cluster.frontends[0].url, chat("hello", "m")) as stream:
            await wait_until((tmp_path / "blocked").exists)

            def ends() -> bool:
                """Signal again, as signals that come in quick succession count as one."""
                if worker.process.returncode is None:
                    worker.signal(signal.SIGTERM)
                return worker.process.returncode is not None

            await wait_until(ends, what="a worker that ends after several signals")
            assert worker.process.returncode == -signal.SIGTERM
            assert error_of(await stream.read()) is not None
