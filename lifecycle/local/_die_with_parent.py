"""A script, run between fork and exec: `python _die_with_parent.py <parent pid> <kernel|lifeline> <command...>`.

It becomes the command, so pid, group and descriptors stay the same, tied to the parent: when that
dies, however it dies, the command gets SIGKILL. Doing this in a fresh single-threaded process is safe where a
`preexec_fn` is not, and works under every event loop.
Standard library only; see `lifecycle.local.die_with_parent` for the caller.
"""

from __future__ import annotations

import os
import select
import signal
import sys

_PR_SET_PDEATHSIG = 1
_LOOK_AGAIN_SECS = 0.5
_MANY_DESCRIPTORS = 1024


def _by_kernel() -> None:
    import ctypes  # slow to import, and not needed for a lifeline

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")


def _by_lifeline() -> None:
    """Leaves a watcher behind that reads standard input: the parent holds the other end, and its end is ours."""
    watched = os.getpid()
    if os.fork() == 0:
        _watch(watched)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)


def _watch(watched: int) -> None:
    # The watcher must keep no output open, or who reads it would never see its end.
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 1)
    os.dup2(null, 2)
    os.closerange(3, _MANY_DESCRIPTORS)
    while os.getppid() == watched:
        if select.select([0], [], [], _LOOK_AGAIN_SECS)[0]:
            os.kill(watched, signal.SIGKILL)
            break
    os._exit(0)


def main(parent: int, how: str, command: list[str]) -> None:
    try:
        if how == "kernel":
            _by_kernel()
        else:
            _by_lifeline()
        if os.getppid() != parent:  # it died before the tie was made
            sys.exit(1)
        os.execvp(command[0], command)
    except OSError as failure:
        sys.exit(f"cannot run {command[0]}: {failure.strerror}")


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3:])
