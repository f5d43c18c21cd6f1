"""Ports to listen on, found out before anything is started."""

from __future__ import annotations

import socket
from contextlib import ExitStack

from lifecycle.errors import LifecycleError
from lifecycle.settings import SettingsError

_HIGHEST = 65_535


def choose_ports(host: str, first: int, count: int) -> list[int]:
    """`count` ports from `first` on, or any free ones for 0. Raises LifecycleError when one is in use."""
    if first + count - 1 > _HIGHEST:
        raise SettingsError(f"--port {first}: {count} frontends need ports up to {first + count - 1}, above {_HIGHEST}")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with ExitStack() as stack:  # all at once: or a free one might be handed out twice
        return [
            _bind(stack.enter_context(socket.socket(family, socket.SOCK_STREAM)), host, first and first + index)
            for index in range(count)
        ]


def _bind(listener: socket.socket, host: str, port: int) -> int:
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen()  # with SO_REUSEADDR a second bind may succeed where a second listen does not
    except OSError as failure:
        raise LifecycleError(f"cannot listen on {host}:{port}: {failure.strerror or failure}; see --port") from None
    return int(listener.getsockname()[1])
