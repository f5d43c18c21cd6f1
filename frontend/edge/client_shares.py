"""Bound what one client's name holds of a frontend, so that no client takes it away from the others.

It applies to clients where keys with more than one name exist. Operators, and all callers of a frontend that has one
name or no keys, have the frontend's own limits only: those of its unfinished bodies are here too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from starlette.types import ASGIApp, Receive, Scope, Send

from lifecycle.fastapi.api_key import ApiKey
from lifecycle.fastapi.api_keys import Keyring
from lifecycle.fastapi.caller import Caller, KeyRole
from lifecycle.fastapi.errors import ApiError
from lifecycle.settings import Settings
from lifecycle.types import ErrorType

MOST_BODIES = 256  # of one name, that have not arrived completely
BODY_SIZES = 32  # of LIFECYCLE_MAX_BODY_BYTES, that these may have in all
MOST_BODIES_IN_ALL = 4096
BODY_SIZES_IN_ALL = 128
_CLAIM = "reader_of"


@dataclass(slots=True)
class UnfinishedBody:
    """Measure one body while it arrives. `name` is None where no share applies."""

    name: str | None
    shares: ClientShares
    size: int = 0

    def add(self, size: int) -> None:
        """Count so many more bytes. Raises ApiError: 429 for the client's share, 503 for the limit."""
        self.size += size
        self.shares.count_bytes(self.name, size)


class ClientShares:
    """Count the readers and the unfinished bodies of each client's name."""

    def __init__(self, keyring: Keyring | None, settings: Settings) -> None:
        self._keyring = keyring
        self._most_readers = max(1, settings.max_readers // 2)
        self._most_bytes = BODY_SIZES * settings.max_body_bytes
        self._most_bytes_in_all = BODY_SIZES_IN_ALL * settings.max_body_bytes
        self._bodies_in_all = self._bytes_in_all = 0
        self._readers: Counter[str] = Counter()
        self._bodies: Counter[str] = Counter()
        self._bytes: Counter[str] = Counter()
        self._seen: tuple[ApiKey, ...] | None = None  # the keys as they were when their names were counted
        self._has_several_names = False

    def applies_to(self, caller: Caller) -> bool:
        """Return whether this caller has a share only."""
        if self._keyring is None or caller.role is not KeyRole.CLIENT:
            return False
        if self._keyring.keys is not self._seen:
            self._seen = self._keyring.keys
            self._has_several_names = len({key.caller.name for key in self._seen}) > 1
        return self._has_several_names

    def claim_reader(self, scope: Scope, caller: Caller) -> None:
        """Count a reader that this call opens until the call ends. Raises ApiError (429)."""
        state = scope["state"]
        if _CLAIM in state or not self.applies_to(caller):
            return
        if self._readers[caller.name] >= self._most_readers:
            message = f"The API key has {self._most_readers} open streams here, its share; repeat the call later"
            raise ApiError(ErrorType.OVERLOAD, message, code="reader_limit")
        self._readers[caller.name] += 1
        state[_CLAIM] = caller.name

    def release_reader(self, scope: Scope) -> None:
        """Undo `claim_reader` when the call has ended."""
        name = scope["state"].pop(_CLAIM, None)
        if name is not None:
            _subtract(self._readers, name, 1)

    @contextmanager
    def unfinished_body(self, caller: Caller) -> Iterator[UnfinishedBody]:
        """Count a body while it arrives. Raises ApiError: 429 for the client's share, 503 for the limit."""
        name = caller.name if self.applies_to(caller) else None
        if name is not None and self._bodies[name] >= MOST_BODIES:
            raise _too_much(f"{MOST_BODIES} request bodies")
        if self._bodies_in_all >= MOST_BODIES_IN_ALL:
            raise _too_much_in_all(f"{MOST_BODIES_IN_ALL} request bodies")
        body = UnfinishedBody(name, self)
        self._bodies_in_all += 1
        if name is not None:
            self._bodies[name] += 1
        try:
            yield body
        finally:
            self._bodies_in_all -= 1
            self._bytes_in_all -= body.size
            if name is not None:
                _subtract(self._bodies, name, 1)
                _subtract(self._bytes, name, body.size)

    def count_bytes(self, name: str | None, size: int) -> None:
        """Count bytes of an unfinished body. Raises ApiError as above."""
        self._bytes_in_all += size
        if name is not None:
            self._bytes[name] += size
            if self._bytes[name] > self._most_bytes:
                raise _too_much(f"{self._most_bytes} bytes of request bodies")
        if self._bytes_in_all > self._most_bytes_in_all:
            raise _too_much_in_all(f"{self._most_bytes_in_all} bytes of request bodies")


class ClientSharesMiddleware:
    """Release what a call has claimed when it ends."""

    def __init__(self, app: ASGIApp, shares: ClientShares) -> None:
        self._app = app
        self._shares = shares

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._app(scope, receive, send)
        finally:
            self._shares.release_reader(scope)


def _too_much(what: str) -> ApiError:
    message = f"The API key has {what} that have not arrived completely, its share; repeat the call later"
    return ApiError(ErrorType.OVERLOAD, message, code="body_limit")


def _too_much_in_all(what: str) -> ApiError:
    message = f"This frontend has {what} that have not arrived completely, its limit; repeat the call later"
    return ApiError(ErrorType.UNAVAILABLE, message, code="frontend_body_limit")


def _subtract(counter: Counter[str], name: str, number: int) -> None:
    counter[name] -= number
    if counter[name] <= 0:
        del counter[name]
