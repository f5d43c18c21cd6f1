"""Run between fork and exec as a script: `python _die_with_parent.py <parent pid> <kernel|pipe> <command...>`.

The script replaces itself by the command, so pid, process group and descriptors stay the same. When the parent dies,
however it dies, the command gets SIGKILL. A fresh single-threaded process can do this safely, which a `preexec_fn`
cannot, and it works under every event loop. It uses the standard library only; `lifecycle.local.die_with_parent`
is the caller.
"""

from __future__ import annotations

import os
import select
import signal
import sys

_PR_SET_PDEATHSIG = 1
_POLL_SECS = 0.5
_MANY_DESCRIPTORS = 1024


def _by_kernel() -> None:
    """Ask the Linux kernel to send SIGKILL when the parent's thread dies."""
    import ctypes  # imported here: it is slow, and the pipe does not need it

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")


def _by_pipe() -> None:
    """Fork a watcher that reads standard input, whose other end only the parent holds open."""
    watched = os.getpid()
    if os.fork() == 0:
        _watch(watched)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)


def _watch(watched: int) -> None:
    """Kill the command when the pipe closes; end when the command has ended."""
    # The watcher must not keep the output open, or its reader would never see the end of it.
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 1)
    os.dup2(null, 2)
    os.closerange(3, _MANY_DESCRIPTORS)
    while os.getppid() == watched:
        if select.select([0], [], [], _POLL_SECS)[0]:
            os.kill(watched, signal.SIGKILL)
            break
    os._exit(0)


def main(parent: int, how: str, command: list[str]) -> None:
    """Tie this process to its parent and execute the command."""
    try:
        if how == "kernel":
            _by_kernel()
        else:
            _by_pipe()
        if os.getppid() != parent:  # the parent died before this process was tied to it
            sys.exit(1)
        os.execvp(command[0], command)
    except OSError as failure:
        sys.exit(f"cannot run {command[0]}: {failure.strerror}")


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3:])
