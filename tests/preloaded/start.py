"""Starts replicas in the way that fits: forked from a process that has imported everything, or as new interpreters."""

from __future__ import annotations

import asyncio
import atexit
import functools
import json
import os
import select
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from lifecycle.local.die_with_parent import ParentDeathPipe

_ROOT = Path(__file__).parents[2]
PARENT_MODULE = "tests.preloaded.parent"
REAL_STARTS = "REAL_STARTS"  # set: each replica is a new interpreter, as a user starts it
_COMMAND = (sys.executable, "-m", "lifecycle.cli.main")
_READ_LATE = ("LIFECYCLE_", "PYTEST_")  # read by the command itself, or by no replica
_PYTEST = "PYTEST_VERSION"  # it sets this; benchmarks and the soak measure processes as users start them
_BASE = dict(os.environ)
_ENDING_SECS = 5.0
_starting = threading.Lock()


class Started(Protocol):
    """A process, with what tests need of asyncio.subprocess.Process."""

    @property
    def pid(self) -> int: ...

    @property
    def returncode(self) -> int | None: ...

    async def wait(self) -> int: ...

    def send_signal(self, signum: int, /) -> None: ...


async def start(
    argv: Sequence[str], *, env: Mapping[str, str], cwd: Path, log: Path, new_interpreter: bool = False
) -> Started:
    """Run `lifecycle` with these arguments in a session of its own; its output goes to `log`."""
    if not new_interpreter and can_fork(env):
        if _the_only.cache_info().currsize == 0:
            await asyncio.to_thread(_parent)  # takes a second, in which the test's loop goes on
        return _parent().start({"argv": list(argv), "env": dict(env), "cwd": str(cwd), "log": str(log)})
    with log.open("wb") as output:
        return await asyncio.create_subprocess_exec(
            *_tied((*_COMMAND, *argv)),
            env=env,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )


def _tied(argv: Sequence[str]) -> Sequence[str]:
    """Return a command that becomes this one, and dies with this process where the kernel sees to it."""
    in_main_thread = threading.current_thread() is threading.main_thread()
    return ParentDeathPipe().command(argv) if sys.platform == "linux" and in_main_thread else argv


def can_fork(env: Mapping[str, str]) -> bool:
    """Return whether a forked child would be the same: what a library may read when it is imported is as it was."""
    measures_coverage = any(name.startswith("COVERAGE_PROCESS_") for name in env)  # each interpreter starts it itself
    if REAL_STARTS in env or measures_coverage or _PYTEST not in os.environ or not hasattr(os, "pidfd_open"):
        return False
    return _read_early(env) == _read_early(_BASE)


def _read_early(env: Mapping[str, str]) -> dict[str, str]:
    return {name: env[name] for name in env if name != "PYTHONPATH" and not name.startswith(_READ_LATE)}


class _Parent:
    """The connection to the process that forks."""

    def __init__(self) -> None:
        self._channel, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", PARENT_MODULE, str(theirs.fileno())],
                env=_BASE | {"PYTHONPATH": str(_ROOT)},
                cwd=_ROOT,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                start_new_session=True,
            )
        self._answers = self._channel.makefile("r")
        self._lock = threading.Lock()
        atexit.register(self._close)
        self._answers.readline()  # it says that it has imported everything

    def start(self, asked: dict[str, Any]) -> _Forked:
        return _Forked(self, self.ask(asked)["pid"])

    def ask(self, asked: dict[str, Any]) -> dict[str, int]:
        with self._lock:
            self._channel.sendall(json.dumps(asked).encode() + b"\n")
            line = self._answers.readline()
        assert line, "the process that forks replicas has ended"
        return dict(json.loads(line))

    def _close(self) -> None:
        self._answers.close()
        self._channel.close()
        try:
            self._process.wait(_ENDING_SECS)
        except subprocess.TimeoutExpired:
            self._process.kill()


def _parent() -> _Parent:
    """Return the one of this process, which the first call starts."""
    with _starting:
        return _the_only()


@functools.cache
def _the_only() -> _Parent:
    return _Parent()


class _Forked:
    """A child of the process that forks. Its pid stays its own until its exit code has been asked for."""

    def __init__(self, parent: _Parent, pid: int) -> None:
        self.pid = pid
        self._parent = parent
        self._pidfd = os.pidfd_open(pid)
        self._code: int | None = None

    @property
    def returncode(self) -> int | None:
        if self._code is None and _has_ended(self._pidfd):
            self._code = self._parent.ask({"exited": self.pid})["code"]
            os.close(self._pidfd)
        return self._code

    async def wait(self) -> int:
        while (code := self.returncode) is None:
            ended = os.dup(self._pidfd)  # several may wait, and a loop has one reader for each descriptor
            loop, told = asyncio.get_running_loop(), asyncio.Event()
            loop.add_reader(ended, told.set)
            try:
                await told.wait()
            finally:
                loop.remove_reader(ended)
                os.close(ended)
        return code

    def send_signal(self, signum: int, /) -> None:
        if self.returncode is not None:
            raise ProcessLookupError
        os.kill(self.pid, signum)

    def __del__(self) -> None:
        if self._code is None:
            os.close(self._pidfd)


def _has_ended(pidfd: int) -> bool:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))
