"""Bound what one client's name holds of a frontend, so that no client takes it away from the others.

It applies to clients where keys with more than one name exist. Operators, and all callers of a frontend that has one
name or no keys, have the frontend's own limits only.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from starlette.types import ASGIApp, Receive, Scope, Send

from frontend.auth.api_keys import ApiKey, Caller, Keyring, KeyRole
from lifecycle.fastapi.errors import ApiError
from lifecycle.settings import Settings
from lifecycle.types import ErrorType

MOST_BODIES = 256  # of one name, that have not arrived completely
BODY_SIZES = 32  # of LIFECYCLE_MAX_BODY_BYTES, that these may have in all
_CLAIM = "reader_of"


@dataclass(slots=True)
class UnfinishedBody:
    """Measure one body while it arrives. `shares` is None where no share applies."""

    name: str
    shares: ClientShares | None
    size: int = 0

    def add(self, size: int) -> None:
        """Count so many more bytes. Raises ApiError (429)."""
        if self.shares is not None:
            self.size += size
            self.shares.count_bytes(self.name, size)


class ClientShares:
    """Count the readers and the unfinished bodies of each client's name."""

    def __init__(self, keyring: Keyring | None, settings: Settings) -> None:
        self._keyring = keyring
        self._most_readers = max(1, settings.max_readers // 2)
        self._most_bytes = BODY_SIZES * settings.max_body_bytes
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
        """Count a body while it arrives. Raises ApiError (429)."""
        if not self.applies_to(caller):
            yield UnfinishedBody(caller.name, None)
            return
        if self._bodies[caller.name] >= MOST_BODIES:
            raise _too_much(f"{MOST_BODIES} request bodies")
        body = UnfinishedBody(caller.name, self)
        self._bodies[caller.name] += 1
        try:
            yield body
        finally:
            _subtract(self._bodies, caller.name, 1)
            _subtract(self._bytes, caller.name, body.size)

    def count_bytes(self, name: str, size: int) -> None:
        """Count bytes of an unfinished body. Raises ApiError (429)."""
        self._bytes[name] += size
        if self._bytes[name] > self._most_bytes:
            raise _too_much(f"{self._most_bytes} bytes of request bodies")


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


def _subtract(counter: Counter[str], name: str, number: int) -> None:
    counter[name] -= number
    if counter[name] <= 0:
        del counter[name]
