"""Child processes that die with this one, however it dies: SIGKILL included."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

_SCRIPT = Path(__file__).with_name("_die_with_parent.py")


class ParentDeathPipe:
    """What to start instead of a command so that the child never outlives this process.

    Start `command(argv)` with `stdin=tether.stdin` and `start_new_session=True`, call `handed_over()` after that,
    and `close()` when the child has ended: closing it earlier kills the child.

    On Linux the kernel does it (PR_SET_PDEATHSIG). It counts the death of the *thread* that forked as the parent's,
    so from any thread but the main one, and on other systems, a small watcher process beside the child does.
    """

    def __init__(self) -> None:
        self._theirs = self._ours = -1
        if not (sys.platform == "linux" and threading.current_thread() is threading.main_thread()):
            self._theirs, self._ours = os.pipe()

    def command(self, argv: Sequence[str]) -> list[str]:
        how = "kernel" if self._theirs < 0 else "lifeline"
        return [sys.executable, "-I", "-S", str(_SCRIPT), str(os.getpid()), how, *argv]

    @property
    def stdin(self) -> int:
        return subprocess.DEVNULL if self._theirs < 0 else self._theirs

    def handed_over(self) -> None:
        """The child has its end of the lifeline; ours alone must keep it open."""
        if self._theirs >= 0:
            os.close(self._theirs)
            self._theirs = -1

    def close(self) -> None:
        self.handed_over()
        if self._ours >= 0:
            os.close(self._ours)
            self._ours = -1
