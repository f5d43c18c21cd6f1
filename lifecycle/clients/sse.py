"""Read server-sent events."""

from __future__ import annotations

from collections.abc import AsyncIterator


async def read_events(texts: AsyncIterator[str]) -> AsyncIterator[tuple[str, str]]:
    """Yield the id and the data of each event; the id is empty for an event without one. Comments are left out.

    The texts may be cut anywhere. An event that the end of the texts cuts off is left out.
    """
    at = ""
    data: list[str] = []
    async for line in _lines(texts):
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


async def _lines(texts: AsyncIterator[str]) -> AsyncIterator[str]:
    """Yield the lines without their ends, LF or CRLF: `str.splitlines` would also split at U+2028, U+2029 and U+0085,
    which JSON has unescaped.
    """
    pieces: list[str] = []  # of the line that has not ended
    async for text in texts:
        first, *others = text.split("\n")
        pieces.append(first)
        for line in others:
            yield "".join(pieces).removesuffix("\r")
            pieces = [line]
