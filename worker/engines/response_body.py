"""Read the body of an upstream's response."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import httpx2

from worker.engines.answer_parser import AnswerParser, early_end

_AFTER_FINISH_SECS = 0.7  # for the usage and [DONE], once the answer is complete
_END_OF_BODY_SECS = 0.1


class ResponseBody:
    """Read the chunks of a response body, no longer than the answer in it needs."""

    def __init__(self, chunks: AsyncIterator[bytes], parser: AnswerParser) -> None:
        """Read `chunks`, of which `parser` says when the answer is complete."""
        self._chunks = chunks
        self._parser = parser
        self._end_at: float | None = None  # by the loop's clock; set once the answer is complete

    async def next(self) -> bytes | None:
        """Return the next chunk, or None at the end, which comes soon once the answer is complete.

        Raise EngineError or Unavailable when the connection breaks before the answer is complete.
        """
        if self._parser.finished and self._end_at is None:
            self._end_at = asyncio.get_running_loop().time() + _AFTER_FINISH_SECS
        try:
            if self._end_at is None:
                return await anext(self._chunks, None)
            async with asyncio.timeout_at(self._end_at):
                return await anext(self._chunks, None)
        except httpx2.HTTPError as failure:
            if not self._parser.finished:
                raise early_end(self._parser.started) from failure
        except TimeoutError:
            pass  # the answer is complete
        return None

    async def exhaust(self) -> None:
        """Read the end of the body, so that the pool can reuse the connection. Give up after _END_OF_BODY_SECS."""
        try:
            async with asyncio.timeout(_END_OF_BODY_SECS):
                async for _ in self._chunks:
                    pass
        except (TimeoutError, httpx2.HTTPError):
            pass  # the answer is complete; only the connection is lost
