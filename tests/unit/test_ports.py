"""The ports that `lifecycle up` chooses."""

from __future__ import annotations

import socket

import pytest

from lifecycle.cli.up.ports import choose_ports
from lifecycle.errors import LifecycleError


def test_ports_are_free_and_different() -> None:
    assert len(set(choose_ports("127.0.0.1", 0, 3))) == 3


def test_a_port_in_use_is_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(LifecycleError, match=f"127.0.0.1:{port}: Address already in use"):
            choose_ports("127.0.0.1", port, 1)
