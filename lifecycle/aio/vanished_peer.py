"""Notice a peer that vanishes: a host that loses its power or its network sends neither FIN nor RST.

TCP alone would give up after a quarter of an hour if it has something to send, and never if it only waits.
"""

from __future__ import annotations

import socket

_PROBES = 4
_HAS_OPTIONS = all(hasattr(socket, name) for name in ("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT"))


def notice_vanished_peer(connection: socket.socket, within_secs: float) -> None:
    """Let the connection fail when its peer has not answered for about `within_secs`, at least 2 seconds.

    An idle connection is probed (SO_KEEPALIVE). Linux applies the same limit to what is sent and not acknowledged, or
    cannot be sent because the peer does not read (TCP_USER_TIMEOUT). A listening socket passes the options on to the
    connections that it accepts. Sockets other than TCP are left alone, and so are options that the system does not
    have.
    """
    if connection.family not in (socket.AF_INET, socket.AF_INET6):
        return
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if _HAS_OPTIONS:
        idle_secs, interval_secs = max(1, int(within_secs / 2)), max(1, round(within_secs / 2 / _PROBES))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, idle_secs)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, interval_secs)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, _PROBES)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, max(2000, round(within_secs * 1000)))
