"""The process that forks replicas: it has imported what they need, and has neither threads nor an event loop.

It reads one JSON line for each request from the socket whose descriptor it is given, and answers in one line. An empty
answer comes first, when all imports are done. It ends with the process that holds the other end, and the replicas with
it: a test run that is killed leaves none behind.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import socket
import sys
from typing import Any

from lifecycle.cli import main as command_line
from lifecycle.local import _die_with_parent

NEEDED = (
    "frontend.server",
    "worker.server",
    "worker.engines.echo",
    "worker.engines.openai",
    "uvicorn.lifespan.on",
    "uvicorn.logging",
    "uvicorn.loops.auto",
    "uvicorn.protocols.http.httptools_impl",
    "httpx2",
    "uvloop",
    "ctypes",
)


class Parent:
    """Forks what it is asked for, and keeps the exit codes of its children."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._pid = os.getpid()
        own = {os.getcwd(), *os.environ.get("PYTHONPATH", "").split(os.pathsep)}
        self._module_path = [folder for folder in sys.path if folder not in own]

    def serve(self) -> dict[str, Any] | None:
        """Answer requests. Return what to run in each child, and None in the parent when nobody asks any more."""
        self._answer({})
        with self._channel.makefile("r") as requests:
            for line in requests:
                asked = json.loads(line)
                if "exited" in asked:
                    _, status = os.waitpid(asked["exited"], 0)
                    self._answer({"code": os.waitstatus_to_exitcode(status)})
                elif pid := os.fork():
                    self._answer({"pid": pid})
                else:
                    return dict(asked)
        return None

    def _answer(self, answer: dict[str, int]) -> None:
        self._channel.sendall(json.dumps(answer).encode() + b"\n")

    def become(self, asked: dict[str, Any]) -> None:
        """Make this child what a new interpreter would be with these arguments."""
        self._channel.close()
        self._end_with_parent()
        os.setsid()
        os.chdir(asked["cwd"])
        log = os.open(asked["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.close(log)
        os.environ.clear()
        os.environ.update(asked["env"])
        given = filter(None, asked["env"].get("PYTHONPATH", "").split(os.pathsep))
        sys.path[:] = [asked["cwd"], *given, *self._module_path]
        sys.argv[:] = [str(command_line.__file__), *asked["argv"]]
        with open("/proc/self/comm", "w") as name:  # tests/processes.py shows it when the process is left over
            name.write(asked["argv"][0])

    def _end_with_parent(self) -> None:
        _die_with_parent._by_kernel()
        if os.getppid() != self._pid:  # it has ended in between
            os._exit(1)


def main() -> None:
    parent = Parent(socket.socket(fileno=int(sys.argv[1])))
    for name in NEEDED:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()
    asked = parent.serve()
    if asked is not None:
        parent.become(asked)
        command_line.main()


if __name__ == "__main__":
    main()
