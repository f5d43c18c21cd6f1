"""Profile a system's Python processes with py-spy (`pip install py-spy`) while a load is measured."""

from __future__ import annotations

import asyncio
import shutil
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from benchmarks.measurement import Effort
from benchmarks.system import System

_RATE_PER_SEC = 200
_SHOWN = 40


@asynccontextmanager
async def profiled(system: System, effort: Effort, secs: float) -> AsyncIterator[None]:
    """Profile the block if `effort` names a folder: `<system>-<part>-<n>.txt` has stacks, `.top` the costliest."""
    if effort.profiles is None:
        yield
        return
    effort.profiles.mkdir(parents=True, exist_ok=True)
    spies = []
    for part, pids in system.pids.items():
        for number, pid in enumerate(pids, 1):
            path = effort.profiles / f"{system.name}-{part}-{number}.txt"
            spies.append(
                (
                    path,
                    await asyncio.create_subprocess_exec(
                        _py_spy(),
                        "record",
                        "-p",
                        str(pid),
                        "-o",
                        str(path),
                        "-f",
                        "raw",
                        "-r",
                        str(_RATE_PER_SEC),
                        "-d",
                        str(max(1, round(secs - 1))),
                        "--nonblocking",
                        stdout=asyncio.subprocess.DEVNULL,
                        stderr=asyncio.subprocess.DEVNULL,
                    ),
                )
            )
    yield
    for path, spy in spies:
        await spy.wait()
        if path.is_file():
            path.with_suffix(".top").write_text(_top(path.read_text()))


def _py_spy() -> str:
    found = shutil.which("py-spy", path=str(Path(sys.executable).parent)) or shutil.which("py-spy")
    if found is None:
        raise SystemExit("--profile needs py-spy: pip install py-spy")
    return found


def _top(stacks: str) -> str:
    """Return two lists of lines: by their own share of samples, and by the share that includes their callees."""
    own: Counter[str] = Counter()
    below: Counter[str] = Counter()
    for line in stacks.splitlines():
        stack, _, samples = line.rpartition(" ")
        frames = stack.split(";")
        own[frames[-1]] += int(samples)
        for frame in {frame.rpartition(":")[0] or frame for frame in frames}:
            below[frame] += int(samples)
    total = max(1, own.total())
    return "\n".join(
        line
        for title, counted in (("itself", own), ("with what it calls", below))
        for line in (title, *(f"{n / total:7.1%}  {frame}" for frame, n in counted.most_common(_SHOWN)), "")
    )
