"""A Redis-speaking server as a child process with a directory of its own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self

from lifecycle.local.die_with_parent import ParentDeathPipe
from lifecycle.local.redis_binary import NoUsableServer

START_TIMEOUT_SECS = 10.0
STOP_TIMEOUT_SECS = 5.0
_PING_TIMEOUT_SECS = 1.0
_POLL_SECS = 0.005
_START_ATTEMPTS = 5
_LOG_TAIL_LINES = 12
_LONGEST_SOCKET_PATH_BYTES = 100  # sun_path holds 108 bytes on Linux, 104 on macOS
_LONGEST_NAME_BYTES = len("/lc-redis-12345678/redis.sock")
_PORT_TAKEN = "address already in use"


class Address(Protocol):
    """Where a server listens."""

    @property
    def url(self) -> str: ...

    def connect(self) -> socket.socket: ...


@dataclass(frozen=True)
class UnixAddress:
    path: Path

    @property
    def url(self) -> str:
        return f"unix://{self.path}?db=0"

    def connect(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(_PING_TIMEOUT_SECS)
        try:
            connection.connect(str(self.path))
        except OSError:
            connection.close()
            raise
        return connection


@dataclass(frozen=True)
class TcpAddress:
    port: int

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), _PING_TIMEOUT_SECS)


class ServerProcess(ABC):
    """A server in its own session and its own 0700 directory, which dies with this process.

    `url` is fixed by the first `start()` and holds until `stop()`, over any number of `kill()` and `start()`.
    The own session keeps a terminal's Ctrl-C away from it: those who use it are to end first.
    """

    def __init__(self) -> None:
        self._directory: tempfile.TemporaryDirectory[str] | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._tether: ParentDeathPipe | None = None

    @property
    @abstractmethod
    def url(self) -> str: ...

    @property
    @abstractmethod
    def server(self) -> str:
        """What runs, for people: `redis 7.0.15 (/usr/bin/redis-server)`."""

    @abstractmethod
    def _argv(self) -> list[str]: ...

    @abstractmethod
    def _probe(self) -> Address:
        """Where to ask whether it answers."""

    @abstractmethod
    def _choose_port(self, again: bool) -> bool:
        """Picks a port if that is for us to pick and needed (`again`: the last was taken). Whether it did."""

    @property
    def directory(self) -> Path:
        if self._directory is None:
            raise RuntimeError("the server has not been started")
        return Path(self._directory.name)

    @property
    def pid(self) -> int:
        if self._process is None:
            raise RuntimeError("the server is not running")
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def log(self) -> str:
        """All it has printed since the first start."""
        return (self.directory / "server.log").read_text(errors="replace")

    def start(self) -> None:
        """Returns once it answers PING. Raises NoUsableServer with its last log lines. A running one is left alone."""
        if self.running:
            return
        self._reap()
        chosen_here = self._directory is None
        if self._directory is None:
            self._directory = tempfile.TemporaryDirectory(prefix="lc-redis-", dir=_short_directory())
        try:
            self._choose_port(again=False)
            for _ in range(_START_ATTEMPTS):
                why = self._launch()
                if why is None:
                    return
                # A port that was free a moment ago may be taken; one that has been given out must stay the same.
                taken = _PORT_TAKEN in self._log_tail().lower()
                if not (taken and chosen_here and self._choose_port(again=True)):
                    break
            raise NoUsableServer(f"{self.server} {why}; its last words:\n{self._log_tail()}")
        except BaseException:
            self.kill()
            if chosen_here:
                self._remove_directory()
            raise

    def stop(self) -> None:
        """Ends it, politely at first, and removes its directory."""
        self._terminate()
        self._remove_directory()

    def restart(self) -> None:
        """Ends it and starts it anew under the same URL. Its data is lost unless its configuration persists it."""
        self._terminate()
        self.start()

    def kill(self) -> None:
        """SIGKILL. The directory stays, `start()` brings it back under the same URL."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._reap()

    def freeze(self) -> None:
        """SIGSTOP: connections stay open, nothing is answered. Returns once it stands still."""
        os.kill(self.pid, signal.SIGSTOP)
        if hasattr(os, "waitid"):  # not on every macOS
            os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def thaw(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _launch(self) -> str | None:
        """None once it answers, else why it does not; it is then ended."""
        self._tether = ParentDeathPipe()
        with (self.directory / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                self._tether.command(self._argv()),
                stdin=self._tether.stdin,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._tether.handed_over()
        give_up_at = time.monotonic() + START_TIMEOUT_SECS
        while self._process.poll() is None:
            if _answers(self._probe()) and self._process.poll() is None:
                return None
            if time.monotonic() > give_up_at:
                self.kill()
                return f"did not answer within {START_TIMEOUT_SECS:g} s"
            time.sleep(_POLL_SECS)
        status = self._process.returncode
        self._reap()
        return f"ended with status {status} instead of answering"

    def _terminate(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            self._process.send_signal(signal.SIGCONT)  # a frozen one could not follow
            try:
                self._process.wait(STOP_TIMEOUT_SECS)
            except subprocess.TimeoutExpired:
                pass
        self.kill()

    def _reap(self) -> None:
        self._process = None
        if self._tether is not None:
            self._tether.close()
            self._tether = None

    def _remove_directory(self) -> None:
        if self._directory is not None:
            self._directory.cleanup()
            self._directory = None

    def _log_tail(self) -> str:
        return "\n".join(self.log.splitlines()[-_LOG_TAIL_LINES:])


def free_port() -> int:
    """A loopback TCP port that nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _answers(address: Address) -> bool:
    try:
        with address.connect() as connection:
            connection.sendall(b"*1\r\n$4\r\nPING\r\n")
            return connection.recv(64).startswith(b"+PONG")
    except OSError:
        return False


def _short_directory() -> str:
    """The temporary directory, or /tmp where a socket's path would become too long for the kernel."""
    usual = tempfile.gettempdir()
    fits = len(os.fsencode(usual)) + _LONGEST_NAME_BYTES <= _LONGEST_SOCKET_PATH_BYTES
    return usual if fits else "/tmp"
