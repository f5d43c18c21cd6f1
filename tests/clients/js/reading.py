"""Run a program of the JavaScript client, and read what it prints."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.clients.js.package import Package
from tests.waiting import wait_until

PROGRAM = Path(__file__).parent / "program.mjs"
_END_SECS = 60.0


@dataclass
class Reading:
    """The lines of one program; `events` are those of its stream."""

    lines: list[dict[str, Any]] = field(default_factory=list)

    def add(self, line: dict[str, Any]) -> None:
        self.lines.append(line)

    @property
    def events(self) -> list[dict[str, Any]]:
        return [line["event"] for line in self.lines if "event" in line]

    @property
    def request_id(self) -> str:
        return next(str(line["requestId"]) for line in self.lines if "event" in line)

    @property
    def ids(self) -> list[str]:
        return [event["id"] for event in self.events if event["id"] is not None]

    @property
    def text(self) -> str:
        choices = [choice for event in self.events for choice in event["data"].get("choices", [])]
        return "".join(choice.get("delta", {}).get("content") or "" for choice in choices)

    @property
    def finish_reasons(self) -> list[str]:
        choices = [choice for event in self.events for choice in event["data"].get("choices", [])]
        return [choice["finish_reason"] for choice in choices if choice.get("finish_reason")]

    @property
    def error(self) -> dict[str, Any] | None:
        """Return the error that the program has ended with; None if it has ended well."""
        assert {"error", "end", "value"} & set(self.lines[-1]), f"it has not ended: {self.lines[-1]}"
        found: dict[str, Any] | None = self.lines[-1].get("error")
        return found

    @property
    def value(self) -> Any:
        return next((line["value"] for line in self.lines if "value" in line), self.lines)

    async def has(self, count: int) -> None:
        """Wait until so many events have come."""
        await wait_until(lambda: len(self.events) >= count, _END_SECS, f"event {count} in the client")


class NodeProgram(Reading):
    """A running program in Node.js."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        super().__init__()
        self.process = process
        self._reader = asyncio.create_task(self._read(), name="reads a program of node")

    async def _read(self) -> None:
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            self.add(json.loads(line))

    async def ended(self) -> None:
        """Wait until the program has ended by itself: nothing it has opened keeps node alive."""
        async with asyncio.timeout(_END_SECS):
            await self._reader
            assert await self.process.wait() == 0

    async def stop(self) -> None:
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()
        self._reader.cancel()
        await asyncio.gather(self._reader, return_exceptions=True)


@asynccontextmanager
async def in_node(
    package: Package, urls: list[str], method: str, *args: Any, **spec: Any
) -> AsyncIterator[NodeProgram]:
    """Run the program in the folder where the package is installed."""
    program = package.folder / PROGRAM.name
    if not program.exists():
        program.write_text(PROGRAM.read_text())
    argument = json.dumps({"urls": urls, "method": method, "args": args, **spec})
    process = await asyncio.create_subprocess_exec(
        "node", str(program), argument, stdout=asyncio.subprocess.PIPE, limit=2**22
    )
    running = NodeProgram(process)
    try:
        yield running
    finally:
        await running.stop()


async def call_in_node(package: Package, urls: list[str], method: str, *args: Any, **spec: Any) -> Reading:
    """Run the program to its end."""
    async with in_node(package, urls, method, *args, **spec) as program:
        await program.ended()
        return program
