"""Read server-sent events."""

from __future__ import annotations

from collections.abc import AsyncIterator


async def read_events(lines: AsyncIterator[str]) -> AsyncIterator[tuple[str, str]]:
    """Yield the id and the data of each event; the id is empty for an event without one. Comments are left out."""
    at = ""
    data: list[str] = []
    async for line in lines:
        if not line:
            if data:
                yield at, "\n".join(data)
            at, data = "", []
            continue
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "id":
            at = value
        elif name == "data":
            data.append(value)
