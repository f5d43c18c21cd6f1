"""Answer with the words of the prompt, at a configurable rate: an engine for demos, tests and benchmarks."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from typing import Any

from lifecycle.errors import EngineError
from lifecycle.execution.context import EngineContext

# A token is a word with the white space before it, the last one also with the white space behind it.
# Joined, the tokens are the text again.
_WORD = re.compile(r"\s*\S+(?:\s+\Z)?")
_TOKENS_PER_YIELD = 16  # after so many late tokens in a row, other tasks of the event loop may run


class EchoEngine:
    """Yield the prompt word by word; the prompt of a chat is the text of its last user message.

    Joined, the tokens are the prompt, byte for byte. The engine supports `max_tokens`, `max_completion_tokens`, `stop`,
    and a parameter of its own, `echo_repeat`: the number of times that the prompt is yielded, separated by a space.
    """

    def __init__(self, tokens_per_sec: float) -> None:
        """Yield `tokens_per_sec` tokens per second; 0 sets no limit."""
        self._tokens_per_sec = tokens_per_sec

    async def __call__(self, request: dict[str, Any], context: EngineContext) -> AsyncIterator[str]:
        """Yield the tokens for `request`. Raise EngineError when `echo_repeat` is not a positive integer."""
        prompt = prompt_of(request)
        context.input_tokens = len(prompt.split())
        limit = _limit(request)
        words = _words(*_until_stop_sequence(request, prompt, _repeat(request)))
        with _Pacer(self._tokens_per_sec, context) as pacer:
            for number, word in enumerate(words):
                if number == limit:
                    context.finish_reason = "length"
                    return
                await pacer.wait_until_due(number)
                if context.is_stopped:
                    return
                yield word


class _Pacer:
    """Make token n due n / rate seconds after the start, so that delays do not add up. A stop ends the wait."""

    def __init__(self, tokens_per_sec: float, context: EngineContext) -> None:
        self._interval = 1 / tokens_per_sec if tokens_per_sec else 0.0
        self._context = context
        self._loop = asyncio.get_running_loop()
        self._start = self._loop.time()
        self._waiter: asyncio.Future[None] | None = None

    def __enter__(self) -> _Pacer:
        self._unlisten = self._context.add_listener(self._wake)
        return self

    def __exit__(self, *_: object) -> None:
        self._unlisten()

    async def wait_until_due(self, number: int) -> None:
        """Wait until token `number`, counted from 0, is due or the context is stopped."""
        due = self._start + number * self._interval
        if due <= self._loop.time() or self._context.is_stopped:
            if number % _TOKENS_PER_YIELD == 0:
                await asyncio.sleep(0)
            return
        self._waiter = self._loop.create_future()
        timer = self._loop.call_at(due, self._wake)
        try:
            await self._waiter
        finally:
            timer.cancel()
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


def prompt_of(request: dict[str, Any]) -> str:
    """Return the text to echo. Parts of a message that are not text are ignored."""
    if "messages" not in request:
        prompt = request.get("prompt") or ""
        return prompt if isinstance(prompt, str) else " ".join(map(str, prompt))
    content = next((m.get("content") for m in reversed(request["messages"]) if m.get("role") == "user"), None)
    if isinstance(content, list):
        return "".join(part["text"] for part in content if part.get("type") == "text")
    return content or ""


def _words(text: str, repeat: int) -> Iterator[str]:
    """Yield the words of `text`, `repeat` times with a space in between, without building the whole text."""
    if not text.strip():  # no word could carry the white space
        if whole := " ".join([text] * min(repeat, 1)):
            yield whole
        return
    for turn in range(repeat):
        for match in _WORD.finditer(text):
            yield " " + match[0] if turn and match.start() == 0 else match[0]


def _until_stop_sequence(request: dict[str, Any], text: str, repeat: int) -> tuple[str, int]:
    """Return the text and its number of repetitions, cut off before the first stop sequence.

    Raise EngineError when `stop` has something else than texts.
    """
    stop = request.get("stop") or []
    given = [stop] if isinstance(stop, str) else stop
    if not isinstance(given, list) or not all(isinstance(sequence, str) for sequence in given):
        raise EngineError(f"stop is {stop!r:.50}; it must be a string or an array of strings", 400, param="stop")
    sequences = [sequence for sequence in given if sequence]
    if not sequences:
        return text, repeat
    # The repetitions are equal, so a sequence that occurs at all begins within the first one.
    longest = max(map(len, sequences))
    opening = " ".join([text] * min(repeat, 2 + longest // (len(text) + 1)))
    found = [at for at in map(opening.find, sequences) if at >= 0]
    return (opening[: min(found)], 1) if found else (text, repeat)


def _limit(request: dict[str, Any]) -> int | None:
    """Return the maximum number of tokens, or None when the request sets none."""
    limit = request.get("max_completion_tokens")
    limit = request.get("max_tokens") if limit is None else limit
    return None if limit is None else int(limit)


def _repeat(request: dict[str, Any]) -> int:
    """Return the request's `echo_repeat`, 1 by default. Raise EngineError when it is not a positive integer."""
    repeat = request.get("echo_repeat", 1)
    if type(repeat) is not int or repeat < 1:  # a bool is an int too
        raise EngineError(f"echo_repeat is {repeat!r:.50}; it must be an integer of at least 1")
    return repeat
