"""The pytest plugin in a project of its own, as a user has it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cluster import ROOT

PROJECT = """
import asyncio
import pytest
import lifecycle
from lifecycle.testing import wait_for_status

namespaces = set()

async def answer():
    yield "done"

{mark}
@pytest.mark.parametrize("number", [1, 2])
async def test_an_answer_ends(lifecycle_tracker, number):
    run = await lifecycle_tracker.track(answer(), model="my-agent", id="same", on_disconnect="continue")
    record = await wait_for_status(lifecycle_tracker, run.id, "completed")
    assert record.output_events == 1
    namespaces.add(lifecycle_tracker.settings.namespace)
    assert len(namespaces) == number
    with pytest.raises(TimeoutError, match="completed"):
        await wait_for_status(lifecycle_tracker, run.id, "failed", timeout_secs=0.05)
    with pytest.raises(lifecycle.NotFound):
        await wait_for_status(lifecycle_tracker, "none", "completed")
"""


@pytest.mark.parametrize(
    ("plugins", "mark"),
    [(("pytest_asyncio.plugin",), "@pytest.mark.asyncio"), (("pytest_asyncio.plugin", "-auto"), "")],
    ids=["strict", "auto"],
)
def test_the_fixture_gives_each_test_a_namespace(tmp_path: Path, plugins: tuple[str, ...], mark: str) -> None:
    (tmp_path / "test_project.py").write_text(PROJECT.format(mark=mark))
    modes = ("-o", "asyncio_mode=auto") if "-auto" in plugins else ()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LIFECYCLE_")}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", plugins[0], "-p", "lifecycle.testing", *modes, "test_project.py"],
        cwd=tmp_path,
        env=environment | {"PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed" in done.stdout
