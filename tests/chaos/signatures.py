"""Sign the tokens of an engine: each names its number, the attempt, and the worker's run of the engine.

Tokens of two runs in one answer then show, whatever became of the record. A signed token is
`<number>@<attempt>.<run> `, with a space behind it.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from lifecycle.execution.context import EngineContext

if TYPE_CHECKING:  # workers import this file for their engines
    from tests.sse import Event

_SIGNED = re.compile(r"(\d+)@(\d+)\.(\w+) ")


class SignedToken(NamedTuple):
    """Hold what a token says of itself; `run` begins with the process id of its worker."""

    number: int
    attempt: int
    run: str


def signer(context: EngineContext) -> Callable[[int], str]:
    """Return what makes the tokens of one run of an engine from their numbers."""
    run = f"{os.getpid()}x{secrets.token_hex(3)}"
    return lambda number: f"{number}@{context.attempt}.{run} "


def signed_token(text: str) -> SignedToken | None:
    """Return what a token says of itself, or None when it is not signed."""
    found = _SIGNED.fullmatch(text)
    return SignedToken(int(found[1]), int(found[2]), found[3]) if found else None


def signed_tokens(text: str) -> list[SignedToken] | None:
    """Return the tokens of a text, or None when not all of it is signed."""
    if _SIGNED.sub("", text):
        return None
    return [SignedToken(int(number), int(attempt), run) for number, attempt, run in _SIGNED.findall(text)]


def splice_in(tokens: Iterable[SignedToken]) -> str:
    """Say where the text of one run goes on with another's that is not a later attempt; '' when it does not."""
    for token, following in pairwise(tokens):
        if token.run != following.run and following.attempt <= token.attempt:
            return f"two runs of the engine are in one answer, as attempts {token.attempt} and {following.attempt}"
    return ""


def text_of(events: list[Event]) -> str:
    """Return the text that a client has read, without the signatures."""
    return _SIGNED.sub(r"\1 ", "".join(event.text for event in events))
