"""One streamed completion from the client's side, parsed no further than the figures need.

What it checks on the way: that the numbers in the texts and in the ids (where there are ids) go up one by one, that
the stream ends with `[DONE]`, and that no error frame comes.
"""

from __future__ import annotations

import asyncio
import re
import time
from array import array
from dataclasses import dataclass, field
from typing import Self, cast

import httptools

from benchmarks.caller import Address, encode

MODEL = "benchmark"
PATH = "/v1/chat/completions"
_TOKEN = re.compile(rb'"content":"(\d+)@(\d+)"')
_ID = re.compile(rb"id: \d+-(\d+)\n")
_NEXT_ID = b"\nid: "
_ERROR = b'data: {"error"'
_DONE = b"data: [DONE]"
_KEPT_ERRORS = 5


def completion(prompt: str, **headers: str) -> bytes:
    body = {"model": MODEL, "stream": True, "messages": [{"role": "user", "content": prompt}]}
    return encode("POST", PATH, body, **headers)


@dataclass(slots=True)
class Tally:
    """What came over all streams."""

    tokens: int = 0
    delays_ns: array[int] = field(default_factory=lambda: array("q"))  # from the engine's yield to our socket
    first_token_ns: array[int] = field(default_factory=lambda: array("q"))  # from the request's sending
    gaps: int = 0
    without_done: int = 0
    refused: int = 0
    error_frames: int = 0
    errors: list[str] = field(default_factory=list)  # the first few, in their own words

    def forget_delays(self) -> None:
        del self.delays_ns[:]

    def note(self, error: str) -> None:
        if len(self.errors) < _KEPT_ERRORS:
            self.errors.append(error)


class Stream(asyncio.Protocol):
    """`begin()` sends the request; `first` is done with the first token, `ended` with the end, however it came."""

    def __init__(self, request: bytes, tally: Tally) -> None:
        loop = asyncio.get_running_loop()
        self.first: asyncio.Future[None] = loop.create_future()
        self.ended: asyncio.Future[None] = loop.create_future()
        self._request = request
        self._tally = tally
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.WriteTransport | None = None
        self._rest = b""
        self._number = 0
        self._done = False
        self._began_ns = self._now_ns = 0

    @classmethod
    async def open(cls, url: str, request: bytes, tally: Tally) -> Self:
        loop = asyncio.get_running_loop()
        _, stream = await loop.create_connection(lambda: cls(request, tally), *Address.of(url))
        return stream

    def begin(self) -> None:
        assert self._transport is not None
        self._began_ns = time.monotonic_ns()
        self._transport.write(self._request)

    def close(self) -> None:
        """Go away, as a client does whose user has closed the window."""
        self._done = True
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)

    def data_received(self, data: bytes) -> None:
        self._now_ns = time.monotonic_ns()
        self._parser.feed_data(data)

    def connection_lost(self, failure: Exception | None) -> None:
        self._end(f"the connection was lost: {failure}")

    # httptools calls these

    def on_body(self, piece: bytes) -> None:
        if self._parser.get_status_code() != 200:
            self._rest += piece
            return
        data = self._rest + piece if self._rest else piece
        whole = data.rfind(b"\n\n") + 2
        if whole == len(data):
            self._rest = b""
        else:
            data, self._rest = data[:whole], data[whole:]
        self._take(data)

    def on_message_complete(self) -> None:
        if self._parser.get_status_code() != 200:
            self._done = True
            self._tally.refused += 1
            self._tally.note(self._rest.decode(errors="replace"))
        self._end("the response ended without [DONE]")
        self.close()

    def _take(self, events: bytes) -> None:
        tally, now_ns = self._tally, self._now_ns
        tokens = _TOKEN.findall(events)
        if tokens:
            if self._number == 0:
                tally.first_token_ns.append(now_ns - self._began_ns)
                self.first.set_result(None)
            before = self._number
            for number, yielded_ns in tokens:
                self._number += 1
                if int(number) != self._number:
                    tally.gaps += 1
                    tally.note(f"token {int(number)} came where {self._number} was due")
                    self._number = int(number)
                tally.delays_ns.append(now_ns - int(yielded_ns))
            tally.tokens += len(tokens)
            self._check_ids(events, before + 1, len(tokens))
        if _ERROR in events:
            tally.error_frames += 1
            tally.note(events[events.index(_ERROR) :].split(b"\n", 1)[0].decode(errors="replace"))
        if _DONE in events:
            self._done = True

    def _check_ids(self, events: bytes, first: int, count: int) -> None:
        """Their first, their last and their number: to parse each would cost more than all the rest."""
        if (opening := _ID.match(events)) is None:
            return  # a system without ids
        ids = 1 + events.count(_NEXT_ID)
        closing = _ID.match(events, events.rfind(_NEXT_ID) + 1)
        if closing is None or ids != count or int(opening[1]) != first or int(closing[1]) != first + count - 1:
            self._tally.gaps += 1
            self._tally.note(f"{ids} ids from {int(opening[1])} came with {count} tokens from {first}")

    def _end(self, why: str) -> None:
        if self.ended.done():
            return
        if not self._done:
            self._tally.without_done += 1
            self._tally.note(why)
        self.ended.set_result(None)
        self.first.cancel()
