"""Read the settings that name hosts and origins."""

from __future__ import annotations

import re

ANY = "*"
_HOST = re.compile(r"[a-z0-9._-]+|\[[0-9a-f:.]+\]")
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://([a-z0-9._-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?|null")


def parse_hosts(text: str) -> frozenset[str]:
    """Read comma-separated host names or addresses, without ports. Raises ValueError."""
    hosts = _names(text)
    for host in hosts:
        if not _HOST.fullmatch(host):
            raise ValueError(
                f"{host!r} is not the name of a host; write it without scheme and port: my.example, [fd00::1]"
            )
    return hosts


def parse_origins(text: str) -> frozenset[str]:
    """Read comma-separated origins, or `*` for all of them. Raises ValueError."""
    origins = _names(text)
    for origin in origins - {ANY}:
        if not _ORIGIN.fullmatch(origin):
            raise ValueError(
                f"{origin!r} is not an origin; write scheme, host and port without a path: https://app.example, "
                f"http://localhost:3000, or {ANY} for every origin"
            )
    return origins


def _names(text: str) -> frozenset[str]:
    return frozenset(name.strip().lower() for name in text.split(",") if name.strip())
