"""The client's reader of server-sent events, for texts that are cut anywhere."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Iterable

import pytest

from lifecycle.clients.sse import read_events

WIRE = ': hello\n\nid: 1-1\ndata: "a"\n\n: keepalive\nid: 1-2\r\ndata: "b"\r\ndata: "c"\r\n\r\ndata: [DONE]\n\n'
READ = [("1-1", '"a"'), ("1-2", '"b"\n"c"'), ("", "[DONE]")]


async def read(texts: Iterable[str]) -> list[tuple[str, str]]:
    async def arriving() -> AsyncIterator[str]:
        for text in texts:
            yield text

    return [event async for event in read_events(arriving())]


@pytest.mark.parametrize("chars", [1, 2, 3, 7, len(WIRE)])
async def test_texts_may_be_cut_anywhere(chars: int) -> None:
    assert await read(WIRE[start : start + chars] for start in range(0, len(WIRE), chars)) == READ


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\u0085"])
async def test_separators_that_json_leaves_as_they_are_end_no_line(separator: str) -> None:
    data = json.dumps(f"one{separator}two", ensure_ascii=False)
    assert separator in data
    wire = f"id: 1-1\ndata: {data}\n\n"
    assert await read([wire]) == await read(wire) == [("1-1", data)]


async def test_an_event_that_is_cut_off_is_left_out() -> None:
    assert await read(["id: 1-1\ndata: 1\n\nid: 1-2\ndata: 2"]) == [("1-1", "1")]


async def test_a_long_line_in_small_pieces_is_joined_once() -> None:
    pieces, chars = 2_000, 4_096
    started_at = time.process_time()
    ((_, data),) = await read(["data: ", *("x" * chars for _ in range(pieces)), "\n\n"])
    assert len(data) == pieces * chars
    assert time.process_time() - started_at < 2.0  # each piece copied for each later one are 8 GB
