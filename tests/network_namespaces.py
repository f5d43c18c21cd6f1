"""Two hosts on one machine, joined by a cable that can be unplugged: network namespaces, which need root."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

SERVER_ADDRESS, CLIENT_ADDRESS = "10.77.0.1", "10.77.0.2"


def can_make_namespaces() -> bool:
    if os.geteuid() != 0 or not all(map(shutil.which, ("unshare", "nsenter", "ip", "curl"))):
        return False
    return subprocess.run(["unshare", "-n", "true"], check=False, capture_output=True).returncode == 0


needs_namespaces = pytest.mark.skipif(not can_make_namespaces(), reason="needs root, unshare, nsenter, ip and curl")


@contextmanager
def namespace() -> Iterator[int]:
    """Hold a network namespace open. Yields the process id of its holder."""
    command = ["unshare", "-n", "sh", "-c", "echo; exec sleep 100"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as holder:
        try:
            assert holder.stdout is not None
            holder.stdout.readline()  # it has entered
            yield holder.pid
        finally:
            holder.kill()


def inside(holder: int, *argv: str) -> list[str]:
    """Return the command that runs `argv` inside a namespace."""
    return ["nsenter", "-t", str(holder), "-n", *argv]


@contextmanager
def cable() -> Iterator[tuple[int, int]]:
    """Join two namespaces. Yields their holders, the server's and the client's."""
    with namespace() as server, namespace() as client:
        ends = ["v0", "netns", str(server), "type", "veth", "peer", "name", "v1", "netns", str(client)]
        subprocess.run(["ip", "link", "add", *ends], check=True)
        for holder, name, address in ((server, "v0", SERVER_ADDRESS), (client, "v1", CLIENT_ADDRESS)):
            subprocess.run(inside(holder, "ip", "addr", "add", f"{address}/24", "dev", name), check=True)
            subprocess.run(inside(holder, "ip", "link", "set", name, "up"), check=True)
        yield server, client


def unplug(client: int) -> None:
    """Cut the cable at the client's end: nothing arrives any more, and nobody is told."""
    subprocess.run(inside(client, "ip", "link", "set", "v1", "down"), check=True)
