"""Define what one endpoint of the API is: how its calls are read, and in which form its answers are written.

The routes serve every endpoint in the same way, so a further endpoint is one more `ApiEndpoint` in `ENDPOINTS`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, Protocol

import orjson

from lifecycle.fastapi.errors import ApiError
from lifecycle.ids import TokenId
from lifecycle.store.transitions import Store
from lifecycle.tokens.items import End
from lifecycle.types import Endpoint, Event, RequestType, Storage

_BACKGROUND = Storage.BACKGROUND  # a global name: looking a member up in its enum is slow


class Call(NamedTuple):
    """Hold a valid call. `body` is the parsed object; the engine gets it.

    `model` is empty when the call names none, which only some endpoints allow: see the route.
    """

    endpoint: Endpoint
    model: str
    request_type: RequestType
    body: dict[str, Any]
    include_usage: bool = False
    gated: tuple[str, ...] = ()  # what the call needs of an engine, see LivingWorker.missing
    storage: Storage = Storage.NONE
    priority: int = 0  # as the call asks for it; the caller's range applies to it

    @property
    def is_background(self) -> bool:
        """Return whether the call is answered at once, and its request goes on without its client."""
        return self.storage is _BACKGROUND


MaySee = Callable[[str | None], bool]
"""Tells whether the caller may see the requests of this owner."""


class Answer(NamedTuple):
    """Identify the answer that events belong to. `created_at` is in Unix seconds.

    `include_usage` is whether the call that a reader resumes has asked for a usage chunk.
    """

    id: str
    model: str
    created_at: float
    include_usage: bool = False


class EventEncoder(Protocol):
    """Encode the events of one request for one client, in order; encoding one again gives the same bytes."""

    def tokens(self, attempt: int, first: int, events: Sequence[Event]) -> bytes:
        """Return the server-sent events for consecutive events, the first of which has the number `first`."""
        ...

    @property
    def is_holding(self) -> bool:
        """Return whether an event is held back at the moment, until what follows it is known."""
        ...

    def release(self) -> bytes:
        """Return the event that is held back, if it may be sent although nothing has followed it for a while."""
        ...

    def ending(self, end: End) -> bytes:
        """Return what ends the stream of a request that has ended so, an error included."""
        ...


class Fold(Protocol):
    """Fold the events of one request, in order, into the body of one response."""

    def add(self, events: Iterable[Event]) -> None:
        """Take the next events."""
        ...

    def body(self, request_id: str, model: str, created: int, end: End) -> dict[str, Any] | orjson.Fragment:
        """Return the body of the response, to be encoded as JSON. `end` is that of a completed request."""
        ...


class ApiEndpoint(ABC):
    """Describe one endpoint. The methods have no state, so one object serves all calls.

    `paths` are those of its POST calls. `id_prefix` begins the ids that are made for its requests; with
    `prefixes_client_ids` it is put before a client's own id too, unless that begins with it. `id_headers` name the
    request in a response, besides X-Request-Id. `forwarded_headers` of a call always reach the engine.
    `parameters` has the endpoint's own names of gated parameters, where they differ from those of chat completions.
    """

    name: Endpoint
    paths: tuple[str, ...]
    id_prefix: str
    prefixes_client_ids: ClassVar[bool] = False
    id_headers: ClassVar[tuple[bytes, ...]] = ()
    forwarded_headers: ClassVar[frozenset[str]] = frozenset()
    parameters: ClassVar[Mapping[str, str]] = {}

    @abstractmethod
    def parse(self, body: bytes) -> Call:
        """Parse and check a body. Raises ApiError, 400, that names the invalid field in `param`."""

    @abstractmethod
    def encoder(self, answer: Answer, call: Call) -> EventEncoder:
        """Return the encoder for the client that made the call, which gets all events."""

    @abstractmethod
    async def resumed_encoder(self, answer: Answer, after: TokenId, store: Store) -> EventEncoder:
        """Return the encoder for a client that has the events up to `after`. Raises StoreUnavailable."""

    @abstractmethod
    def fold(self) -> Fold:
        """Return an empty fold."""

    def is_opening(self, event: Event) -> bool:
        """Return whether the event says only that an answer begins, so that the answer has none of its content yet."""
        return False

    async def prepare(self, call: Call, store: Store, may_see: MaySee, limit_bytes: int) -> Call:
        """Return the call as the engine is to get it, with what it refers to. It is admitted next.

        Raises ApiError when it refers to something that is not there, or becomes larger than `limit_bytes`; raises
        StoreUnavailable.
        """
        return call

    def openings(self, rid: str, call: Call) -> tuple[Event, ...]:
        """Return the first events of the answer, which are written when the request is admitted."""
        return ()

    async def in_background(self, answer: Answer, call: Call, store: Store, *, is_repeated: bool) -> dict[str, Any]:
        """Return the body that answers a call in the background. `is_repeated`: an earlier call started its request.

        Raises ApiError, 404, when the answer of the earlier call was deleted, and StoreUnavailable.
        """
        raise TypeError(f"{self.name} has no calls in the background")

    def error_body(self, error: ApiError, request_id: str) -> bytes:
        """Return the body of the response to a call that failed before its response began.

        `request_id` is the id in its X-Request-Id.
        """
        return error.body()
