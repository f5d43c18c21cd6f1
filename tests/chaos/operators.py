"""The command line, as an operator runs it."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import NamedTuple

from lifecycle.settings import Settings, as_environment
from tests.cluster import ROOT

_BOUND_SECS = 30.0


class Run(NamedTuple):
    status: int
    output: str
    complaint: str


async def lifecycle(settings: Settings, *argv: str) -> Run:
    """`lifecycle ps --json`, say, to its end."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "lifecycle.cli.main",
        *argv,
        env=as_environment(settings) | {"PYTHONPATH": os.fspath(ROOT)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(_BOUND_SECS):
            output, complaint = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        raise AssertionError(f"lifecycle {' '.join(argv)} did not end within {_BOUND_SECS:g} s") from None
    assert process.returncode is not None
    return Run(process.returncode, output.decode(), complaint.decode())
