"""Child processes of the test run, so that a test which leaves one behind is told so."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lifecycle.local.redis_process import ServerProcess
from tests.preloaded.start import PARENT_MODULE
from tests.waiting import block_until

_ENDING_SECS = 3.0
_POLL_SECS = 0.01
_OF_THE_INTERPRETER = ("multiprocessing.resource_tracker", "multiprocessing.forkserver")

_kept: list[ServerProcess] = []


@contextmanager
def kept(*servers: ServerProcess) -> Iterator[None]:
    """They belong to a fixture that ends them: whatever process each of them is at the moment, it is not left over."""
    _kept.extend(servers)
    try:
        yield
    finally:
        for server in servers:
            _kept.remove(server)


def children() -> dict[int, str]:
    """Pid and command line of each child; a zombie too: nobody has waited for it. Empty where there is no /proc."""
    found: dict[int, str] = {}
    for pid in _pids_of_children(os.getpid()):
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if PARENT_MODULE in words:
            found.update(_forked(pid))
        elif not any(name in words for name in _OF_THE_INTERPRETER):
            found[pid] = words.strip() or "(a zombie: nobody waited for it)"
    return found


def _forked(parent: int) -> dict[int, str]:
    """Pid and role of each replica of tests/preloaded that runs. A zombie remains when nobody asks for its code."""
    found = {}
    for pid in _pids_of_children(parent):
        with suppress(OSError):
            if not gone(pid):
                found[pid] = f"lifecycle {Path(f'/proc/{pid}/comm').read_text().strip()}"
    return found


def _pids_of_children(pid: int) -> list[int]:
    pids: list[int] = []
    for listing in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):  # the thread has ended
            pids += map(int, listing.read_text().split())
    return pids


def left_over(before: set[int]) -> dict[int, str]:
    """Children that were not there before, once those that are just ending have had the time to."""
    give_up_at = time.monotonic() + _ENDING_SECS
    while True:
        expected = before | {server.pid for server in _kept if server.running}
        found = {pid: words for pid, words in children().items() if pid not in expected}
        if not found or time.monotonic() > give_up_at:
            return found
        time.sleep(_POLL_SECS)


def end(pids: Iterable[int]) -> None:
    """Kill these processes, so that they do not disturb the next test."""
    for pid in pids:
        with suppress(ProcessLookupError, ChildProcessError):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def wait_until_stopped(pid: int) -> None:
    """Block until a process that got SIGSTOP stands still with all its threads, or has ended."""
    if sys.platform == "linux":
        block_until(lambda: _states(pid) <= set("TZX"), f"a standstill of process {pid}")
    else:
        os.waitid(os.P_PID, pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)


def _states(pid: int) -> set[str]:
    """Return the letters of /proc for the states of a process's threads; none when it has ended."""
    found = set()
    for stat in Path(f"/proc/{pid}/task").glob("*/stat"):
        with suppress(OSError):  # the thread has ended
            found.add(stat.read_text().rpartition(")")[2].split()[0])
    return found


def gone(pid: int) -> bool:
    """Return whether there is no such process, or only its zombie, which its new parent may be slow to reap."""
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except ProcessLookupError:
        return True
    except FileNotFoundError:  # no /proc on this system, or gone in between
        return sys.platform == "linux"
