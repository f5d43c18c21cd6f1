"""One child process: in its own session, tied to our life, its output read line by line."""

from __future__ import annotations

import asyncio
import os
import signal
from asyncio.subprocess import STDOUT, Process, create_subprocess_exec
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence

from lifecycle.local.die_with_parent import ParentDeathPipe

TAIL_LINES = 10
_LONGEST_LINE_BYTES = 64 * 1024
_OUTPUT_AFTER_EXIT_SECS = 1.0


class Child:
    """A running process. `ended` is done, with its exit status, once it is gone with its group and all was read."""

    def __init__(
        self, name: str, process: Process, tether: ParentDeathPipe, output: _Output, on_line: Callable[[str], None]
    ) -> None:
        self.name = name
        self.tail: deque[str] = deque(maxlen=TAIL_LINES)
        self._process = process
        self._tether = tether
        self._reading = asyncio.create_task(self._read(output, on_line))
        self.ended: asyncio.Task[int] = asyncio.create_task(self._see_it_end())

    @classmethod
    async def start(
        cls, name: str, argv: Sequence[str], env: Mapping[str, str] | None, on_line: Callable[[str], None]
    ) -> Child:
        """`env` is its whole environment, or None for ours. What cannot be run ends at once, and says so."""
        tether = ParentDeathPipe()
        output, theirs = await _Output.open()
        try:
            process = await create_subprocess_exec(
                *tether.command(argv),
                env=env,
                stdin=tether.stdin,
                stdout=theirs,
                stderr=STDOUT,
                start_new_session=True,
            )
        except BaseException:
            output.close()
            tether.close()
            raise
        finally:
            os.close(theirs)
        tether.handed_over()
        return cls(name, process, tether, output, on_line)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process.returncode is None

    def terminate(self) -> None:
        """SIGTERM, to it alone: it knows best how to end what it has started."""
        if self.running:
            self._process.terminate()

    def kill(self) -> None:
        """SIGKILL, to it and whatever it has started."""
        if self.running:
            self._kill_group()

    def _kill_group(self) -> None:
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):  # macOS says the latter of a group of zombies
            pass

    async def _read(self, output: _Output, on_line: Callable[[str], None]) -> None:
        try:
            async for line in output.lines():
                self.tail.append(line)
                on_line(line)
        finally:
            output.close()

    async def _see_it_end(self) -> int:
        status = await self._process.wait()
        self._kill_group()  # what it left behind
        await asyncio.wait([self._reading], timeout=_OUTPUT_AFTER_EXIT_SECS)
        self._reading.cancel()
        self._tether.close()
        return status


class _Output:
    """A pipe of our own: with asyncio's, wait() would wait for grandchildren that hold it open."""

    def __init__(self, reader: asyncio.StreamReader, transport: asyncio.ReadTransport) -> None:
        self._reader = reader
        self._transport = transport

    @classmethod
    async def open(cls) -> tuple[_Output, int]:
        """The reading side, and the descriptor to write to, which is the caller's to close."""
        ours, theirs = os.pipe()
        reader = asyncio.StreamReader()
        try:
            transport, _ = await asyncio.get_running_loop().connect_read_pipe(
                lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(ours, "rb", 0)
            )
        except BaseException:
            os.close(theirs)
            raise
        return cls(reader, transport), theirs

    async def lines(self) -> AsyncIterator[str]:
        """Lines without their ends. One that is too long comes in pieces: memory is bounded, nothing blocks."""
        pending = b""
        while chunk := await self._reader.read(_LONGEST_LINE_BYTES):
            *whole, pending = (pending + chunk).split(b"\n")
            if len(pending) > _LONGEST_LINE_BYTES:
                whole.append(pending)
                pending = b""
            for line in whole:
                yield _text(line)
        if pending:
            yield _text(pending)

    def close(self) -> None:
        self._transport.close()


def describe_status(status: int) -> str:
    """`status 3`, or `SIGKILL`."""
    if status >= 0:
        return f"status {status}"
    try:
        return signal.Signals(-status).name
    except ValueError:
        return f"signal {-status}"


def _text(line: bytes) -> str:
    return line.rstrip(b"\r").decode(errors="replace")
