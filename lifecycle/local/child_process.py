"""Run one child process in its own session; it dies with this process, and its output is read line by line."""

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
    """A running process.

    `ended` is a task that returns the exit status once the process and its group are gone and all output was read.
    """

    def __init__(
        self, name: str, process: Process, death_pipe: ParentDeathPipe, output: _Output, on_line: Callable[[str], None]
    ) -> None:
        self.name = name
        self.tail: deque[str] = deque(maxlen=TAIL_LINES)
        self._process = process
        self._death_pipe = death_pipe
        self._reading = asyncio.create_task(self._read(output, on_line))
        self.ended: asyncio.Task[int] = asyncio.create_task(self._wait_for_end())

    @classmethod
    async def start(
        cls, name: str, argv: Sequence[str], env: Mapping[str, str] | None, on_line: Callable[[str], None]
    ) -> Child:
        """Start a process; `env` is its whole environment, or None for this process's.

        A command that cannot be executed ends at once, with the reason in its output.
        """
        death_pipe = ParentDeathPipe()
        output, theirs = await _Output.open()
        try:
            process = await create_subprocess_exec(
                *death_pipe.command(argv),
                env=env,
                stdin=death_pipe.stdin,
                stdout=theirs,
                stderr=STDOUT,
                start_new_session=True,
            )
        except BaseException:
            output.close()
            death_pipe.close()
            raise
        finally:
            os.close(theirs)
        death_pipe.handed_over()
        return cls(name, process, death_pipe, output, on_line)

    @property
    def pid(self) -> int:
        """Return the process id."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Return whether the process has not ended yet."""
        return self._process.returncode is None

    def terminate(self) -> None:
        """Send SIGTERM to the process alone, which ends its own children."""
        if self.running:
            self._process.terminate()

    def kill(self) -> None:
        """Send SIGKILL to the process and everything it has started."""
        if self.running:
            self._kill_group()

    def _kill_group(self) -> None:
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):  # macOS raises PermissionError for a group of zombies
            pass

    async def _read(self, output: _Output, on_line: Callable[[str], None]) -> None:
        try:
            async for line in output.lines():
                self.tail.append(line)
                on_line(line)
        finally:
            output.close()

    async def _wait_for_end(self) -> int:
        status = await self._process.wait()
        self._kill_group()  # processes that it left running
        await asyncio.wait([self._reading], timeout=_OUTPUT_AFTER_EXIT_SECS)
        self._reading.cancel()
        self._death_pipe.close()
        return status


class _Output:
    """A pipe for the output. With asyncio's own pipe, wait() would wait for grandchildren that hold it open."""

    def __init__(self, reader: asyncio.StreamReader, transport: asyncio.ReadTransport) -> None:
        self._reader = reader
        self._transport = transport

    @classmethod
    async def open(cls) -> tuple[_Output, int]:
        """Return the reading side and the descriptor to write to, which the caller closes."""
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
        """Yield lines without their line ends; a line beyond 64 KiB comes in pieces, so that memory is bounded."""
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
        """Close the reading side."""
        self._transport.close()


def describe_status(status: int) -> str:
    """Describe an exit status, for example `status 3` or `SIGKILL`."""
    if status >= 0:
        return f"status {status}"
    try:
        return signal.Signals(-status).name
    except ValueError:
        return f"signal {-status}"


def _text(line: bytes) -> str:
    return line.rstrip(b"\r").decode(errors="replace")
