"""Run a server that speaks the Redis protocol as a child process with a private directory."""

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


class ListenAddress(Protocol):
    """An address that a server listens on."""

    @property
    def url(self) -> str:
        """Return the address as a Redis URL."""
        ...

    def connect(self) -> socket.socket:
        """Return a connected socket. Raises OSError."""
        ...


@dataclass(frozen=True)
class UnixAddress:
    """A unix socket."""

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
    """A loopback TCP port."""

    port: int

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), _PING_TIMEOUT_SECS)


class ServerProcess(ABC):
    """A server in its own session, with its own 0700 directory, that dies with this process.

    The first `start()` fixes `url`; it stays the same until `stop()`, over any number of `kill()` and `start()`.
    A terminal's Ctrl-C does not reach its session, so that its users can end before it.
    """

    def __init__(self) -> None:
        self._directory: tempfile.TemporaryDirectory[str] | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._death_pipe: ParentDeathPipe | None = None

    @property
    @abstractmethod
    def url(self) -> str:
        """Return the Redis URL for clients."""

    @property
    @abstractmethod
    def server(self) -> str:
        """Describe the server for people: `redis 7.0.15 (/usr/bin/redis-server)`."""

    @abstractmethod
    def _argv(self) -> list[str]: ...

    @abstractmethod
    def _probe(self) -> ListenAddress:
        """Return the address that is pinged to see whether the server answers."""

    @abstractmethod
    def _choose_port(self, again: bool) -> bool:
        """Choose a port if one has to be chosen (`again`: the last one was taken); return whether one was chosen."""

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
        """Return everything that it has printed since the first start."""
        return (self.directory / "server.log").read_text(errors="replace")

    def start(self) -> None:
        """Start the server unless it runs, and return once it answers PING.

        Raises NoUsableServer with its last log lines.
        """
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
                # A chosen port may have been taken meanwhile. Once `url` has been given out, the port must stay.
                taken = _PORT_TAKEN in self._log_tail().lower()
                if not (taken and chosen_here and self._choose_port(again=True)):
                    break
            raise NoUsableServer(f"{self.server} {why}; its last log lines:\n{self._log_tail()}")
        except BaseException:
            self.kill()
            if chosen_here:
                self._remove_directory()
            raise

    def stop(self) -> None:
        """End the server with SIGTERM, then SIGKILL, and remove its directory."""
        self._terminate()
        self._remove_directory()

    def restart(self) -> None:
        """End the server and start it again under the same URL; data survives only if its configuration persists it."""
        self._terminate()
        self.start()

    def kill(self) -> None:
        """Send SIGKILL. The directory stays, and `start()` starts it again under the same URL."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._reap()

    def freeze(self) -> None:
        """Send SIGSTOP and return once it has stopped: connections stay open, and nothing is answered."""
        os.kill(self.pid, signal.SIGSTOP)
        if hasattr(os, "waitid"):  # not on every macOS
            os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def thaw(self) -> None:
        """Send SIGCONT after `freeze`."""
        os.kill(self.pid, signal.SIGCONT)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _launch(self) -> str | None:
        """Start the process; return None once it answers, else the reason after ending it."""
        self._death_pipe = ParentDeathPipe()
        with (self.directory / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                self._death_pipe.command(self._argv()),
                stdin=self._death_pipe.stdin,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._death_pipe.handed_over()
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
            self._process.send_signal(signal.SIGCONT)  # a frozen process handles SIGTERM only after SIGCONT
            try:
                self._process.wait(STOP_TIMEOUT_SECS)
            except subprocess.TimeoutExpired:
                pass
        self.kill()

    def _reap(self) -> None:
        self._process = None
        if self._death_pipe is not None:
            self._death_pipe.close()
            self._death_pipe = None

    def _remove_directory(self) -> None:
        if self._directory is not None:
            self._directory.cleanup()
            self._directory = None

    def _log_tail(self) -> str:
        return "\n".join(self.log.splitlines()[-_LOG_TAIL_LINES:])


def free_port() -> int:
    """Return a loopback TCP port that is free at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _answers(address: ListenAddress) -> bool:
    try:
        with address.connect() as connection:
            connection.sendall(b"*1\r\n$4\r\nPING\r\n")
            return connection.recv(64).startswith(b"+PONG")
    except OSError:
        return False


def _short_directory() -> str:
    """Return the temporary directory, or /tmp if a socket path in it would be too long for the kernel."""
    usual = tempfile.gettempdir()
    fits = len(os.fsencode(usual)) + _LONGEST_NAME_BYTES <= _LONGEST_SOCKET_PATH_BYTES
    return usual if fits else "/tmp"
