"""The command line for tests: commands as processes of their own, and operators' commands in this process."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from lifecycle.cli.main import run
from tests.sse import Stream

BOUND_SECS = 20.0
LIFECYCLE = [sys.executable, "-m", "lifecycle.cli.main"]
ROOT = Path(__file__).parents[2]


class Program:
    """A running command, with what it has printed so far."""

    def __init__(self, *arguments: str, **environment: str) -> None:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("LIFECYCLE_")}
        self.process = subprocess.Popen(
            [*LIFECYCLE, *arguments],
            cwd=ROOT,
            env=clean | environment,
            text=True,
            start_new_session=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self.printed = ""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        while text := os.read(self.process.stdout.fileno(), 65_536):
            self.printed += text.decode()

    def wait_for(self, condition: Callable[[], bool]) -> None:
        give_up_at = time.monotonic() + BOUND_SECS
        while not condition():
            assert self.process.poll() is None, self.printed
            assert time.monotonic() < give_up_at, self.printed
            time.sleep(0.02)

    def end(self, sig: signal.Signals) -> int:
        """The exit code, with everything printed."""
        self.process.send_signal(sig)
        return self.wait()

    def wait(self) -> int:
        code = self.process.wait(BOUND_SECS)
        self._reader.join(BOUND_SECS)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code


class Up(Program):
    """`lifecycle up`, once it says that it is ready; everything it prints for people to copy is taken from there."""

    def __init__(self, *arguments: str) -> None:
        super().__init__("up", "--port", "0", "--drain-timeout-secs", "1", *arguments)
        try:
            self.wait_for(lambda: "Ctrl-C stops everything" in self.printed)
        except AssertionError:
            self.end(signal.SIGTERM)
            raise
        self.urls = re.findall(r"^  (http://\S+)/$", self.printed, re.MULTILINE)
        self.redis_url = self._found(r"export LIFECYCLE_REDIS_URL='?([^'\s]+)")
        self.stream_url, self.body = self._found(r"curl -N (\S+)"), json.loads(self._found(r"-d '(\{.*\})'"))
        self.inflight_url = self._found(r"curl (http\S+/v1/inflight)")
        self.cancel_url = self._found(r"curl -X POST '(\S+)'").replace("demo-1", "{}")
        self.pids = [int(pid) for pid in re.findall(r"\(pid (\d+)\)", self.printed)]

    def _found(self, pattern: str) -> str:
        match = re.search(pattern, self.printed)
        assert match, self.printed
        return match[1]

    def still_running(self) -> list[int]:
        directory = Path(self.redis_url.removeprefix("unix://").partition("?")[0]).parent
        return [pid for pid in self.pids if Path(f"/proc/{pid}").exists()] + [0] * directory.exists()

    @asynccontextmanager
    async def stream(self, rid: str, **fields: Any) -> AsyncIterator[tuple[httpx2.AsyncClient, Stream]]:
        """The printed `curl -N`, under an id of its own."""
        headers = {"X-Request-Id": rid}
        async with (
            httpx2.AsyncClient(timeout=BOUND_SECS, trust_env=False) as http,
            http.stream("POST", self.stream_url, json=self.body | fields, headers=headers) as response,
        ):
            yield http, Stream(response)


class Operator:
    """Runs commands in this process, on a server and namespace."""

    def __init__(self, capsys: pytest.CaptureFixture[str], *flags: str) -> None:
        self._capsys = capsys
        self._flags = flags

    async def __call__(self, *arguments: str) -> tuple[int, str, str]:
        """Exit code, standard output, standard error."""
        code = await asyncio.to_thread(run, [*arguments, *self._flags])
        return code, *self._capsys.readouterr()

    async def json(self, *arguments: str) -> Any:
        code, out, err = await self(*arguments, "--json")
        assert (code, err) == (0, "")
        return json.loads(out)
