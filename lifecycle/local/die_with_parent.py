"""Start child processes that die with this process, however it dies, SIGKILL included."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

_SCRIPT = Path(__file__).with_name("_die_with_parent.py")


class ParentDeathPipe:
    """Wrap a command so that its process never outlives this one.

    Start `command(argv)` with `stdin=pipe.stdin` and `start_new_session=True`, then call `handed_over()`. Call
    `close()` when the child has ended; closing earlier kills the child.

    On Linux the kernel kills the child (PR_SET_PDEATHSIG). Since it does so when the *thread* that forked ends, a small
    watcher process beside the child is used in any thread but the main one, and on other systems.
    """

    def __init__(self) -> None:
        self._theirs = self._ours = -1
        if not (sys.platform == "linux" and threading.current_thread() is threading.main_thread()):
            self._theirs, self._ours = os.pipe()

    def command(self, argv: Sequence[str]) -> list[str]:
        """Return the command line to start instead of `argv`."""
        how = "kernel" if self._theirs < 0 else "pipe"
        return [sys.executable, "-I", "-S", str(_SCRIPT), str(os.getpid()), how, *argv]

    @property
    def stdin(self) -> int:
        """Return the descriptor for the child's standard input."""
        return subprocess.DEVNULL if self._theirs < 0 else self._theirs

    def handed_over(self) -> None:
        """Close this process's copy of the child's end, so that only the other end keeps the pipe open."""
        if self._theirs >= 0:
            os.close(self._theirs)
            self._theirs = -1

    def close(self) -> None:
        """Close the pipe; a child that still runs is killed."""
        self.handed_over()
        if self._ours >= 0:
            os.close(self._ours)
            self._ours = -1
