"""Choose the ports to listen on before anything is started."""

from __future__ import annotations

import socket
from contextlib import ExitStack

from lifecycle.errors import LifecycleError
from lifecycle.settings import SettingsError

_HIGHEST = 65_535


def choose_ports(host: str, first: int, count: int) -> list[int]:
    """Return `count` consecutive ports from `first` on, or any free ports if `first` is 0.

    Raises SettingsError when the range exceeds the highest port, and LifecycleError when a port is in use.
    """
    if first + count - 1 > _HIGHEST:
        raise SettingsError(f"--port {first}: {count} frontends need ports up to {first + count - 1}, above {_HIGHEST}")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with ExitStack() as stack:  # held open together, so that no free port is chosen twice
        return [
            _bind(stack.enter_context(socket.socket(family, socket.SOCK_STREAM)), host, first and first + index)
            for index in range(count)
        ]


def _bind(listener: socket.socket, host: str, port: int) -> int:
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen()  # with SO_REUSEADDR a second bind may succeed although the port is in use
    except OSError as failure:
        raise LifecycleError(
            f"cannot listen on {host}:{port}: {failure.strerror or failure}; choose other ports with --port"
        ) from None
    return int(listener.getsockname()[1])
