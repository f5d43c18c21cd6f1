"""Speak HTTP/1.1 with clients: uvicorn's protocol, with limits and without what only it would do.

What differs: a head is bounded in bytes and time and a body in time, an offer to upgrade the connection is ignored, a
response to HTTP/1.0 is not chunked, and malformed HTTP gets the same error body as other bad calls. It is in this
module and in `lifecycle.fastapi.client_connection` that uvicorn's own objects are used.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from enum import Enum, auto
from http import HTTPStatus
from typing import Any, cast
from urllib.parse import unquote

import httptools
from starlette.types import ASGIApp
from uvicorn import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from frontend.edge.connections import EdgeConnections
from frontend.edge.cors import Cors
from frontend.edge.head import MAX_HEAD_BYTES, check_head, too_large_head, without_upgrade
from frontend.edge.refusals import Refusals
from frontend.edge.unchunked import Unchunked
from frontend.transport.error_responses import error_body, id_headers, without_slash_at_end
from frontend.transport.request_id import SECURITY
from lifecycle.fastapi.client_connection import ClientConnection
from lifecycle.fastapi.errors import ApiError
from lifecycle.ids import new_request_id
from lifecycle.types import ErrorType

_IDLE_SECS = 75  # after which an idle connection is closed
_LINGER_SECS = 1.0  # for which the rest of a refused call is read, because closing at once could discard the response
_BODY_BYTES_PER_SEC = 64 * 1024
_MALFORMED = "Invalid HTTP request received."
_OLD_VERSIONS = frozenset({"0.9", "1.0"})  # of HTTP, whose clients do not know chunks


class EdgeConfig(Config):
    """Configure uvicorn for a frontend."""

    def __init__(self, app: ASGIApp, shared: EdgeConnections, refusals: Refusals, cors: Cors) -> None:
        super().__init__(
            app,
            http=HttpProtocol,
            loop="none",
            log_config=None,
            log_level="warning",
            access_log=False,
            proxy_headers=False,  # the application has this middleware itself
            timeout_keep_alive=_IDLE_SECS,
            timeout_graceful_shutdown=2,
            backlog=4096,
            lifespan="off",
            server_header=False,
        )
        self.shared = shared
        self.refusals = refusals
        self.cors = cors


class _Awaited(Enum):
    """Name what a connection waits for."""

    HEAD = auto()
    BODY = auto()
    NOTHING = auto()  # the response is under way, or the connection is idle


_HEAD, _BODY, _NOTHING = _Awaited


class HttpProtocol(HttpToolsProtocol):
    """Serve one connection. Each call has its `ClientConnection`."""

    def __init__(
        self,
        config: EdgeConfig,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._shared = config.shared
        self._refusals = config.refusals
        self._cors = config.cors
        self.url, self.headers = b"", []  # of the latest call, as far as they have arrived
        self._disconnect_callbacks: set[Callable[[], None]] = set()
        self._awaited = _HEAD
        self._measured: _Awaited | None = _NOTHING  # whose time is measured; None: that of an earlier call
        self._received = 0  # bytes of the head that is not complete, or of the body
        self._segment_bytes = 0  # of what the parser is fed
        self._bodiless_bytes = 0  # that came since the last part of the body: trailers, which the parser keeps
        self._plain_head = b""  # of a call that offers an upgrade: its head without the offer
        self._refused = False
        self._lingering: asyncio.TimerHandle | None = None

    # the connection

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._measure()
        if not self._shared.make_room(self, len(self.connections)):
            message = "This frontend has no descriptors left for another connection; repeat the call later"
            self._refuse(ApiError(ErrorType.UNAVAILABLE, message, code="no_descriptors"))
            transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._shared.finish(self)
        self._shared.idle.pop(self, None)
        if self._lingering is not None:
            self._lingering.cancel()
        for callback in list(self._disconnect_callbacks):
            callback()

    def close_after_response(self) -> None:
        """Let the responses that are under way close the connection."""
        for cycle in (self.cycle, *(cycle for cycle, _ in self.pipeline)):
            if cycle is not None:
                cycle.keep_alive = False

    def close_unused(self) -> None:
        """Close the connection, which serves no call."""
        self._shared.idle.pop(self, None)
        self._shared.finish(self)
        self.transport.abort()

    # the time

    @property
    def is_unused(self) -> bool:
        """Return whether the connection waits for a call, or for the rest of one that has been answered."""
        return not self._is_responding and not self.transport.get_write_buffer_size()

    @property
    def _is_responding(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _measure(self) -> None:
        """Measure the time of what the connection waits for from now on."""
        self._measured = self._awaited
        if self._awaited is _NOTHING:
            self._shared.finish(self)
            return
        if self._awaited is _BODY:
            self._received = 0
        self._shared.wait_for(self)

    def is_overdue(self, waited_secs: float) -> bool:
        """Return whether the client has taken too long to send what the frontend waits for."""
        return waited_secs > self._limit_secs()

    def _limit_secs(self) -> float:
        if self._awaited is _HEAD:
            return self._shared.head_timeout_secs
        return self._shared.body_timeout_secs + self._received / _BODY_BYTES_PER_SEC

    def close_overdue(self) -> None:
        """Close the connection, with 408 if no response has begun.

        Wait longer if an earlier response is under way, or if the frontend itself has not read what came.
        """
        if self._awaited is _HEAD:
            what, is_waiting = "head of the call", self._is_responding
        else:
            what, is_waiting = "request body", bool(self.pipeline) or self.flow.read_paused
        if is_waiting:
            self._shared.wait_for(self)
        elif self._awaited is _BODY and self.cycle.response_started:
            self.transport.close()
        else:
            message = f"The {what} did not arrive within {self._limit_secs():g} seconds; send it again"
            self._refuse(ApiError(ErrorType.VALIDATION, message, status=408, code="call_timeout"))

    # what is received

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        self._unset_keepalive_if_required()
        if self._awaited is _NOTHING and self.cycle.response_complete:
            self._shared.idle.pop(self, None)
            self._await_head()
        try:
            while data:
                size = self._segment_bytes = len(data)
                if self._awaited is not _NOTHING:
                    self._received += size
                    self._bodiless_bytes += size
                try:
                    self.parser.feed_data(data)
                    break
                except httptools.HttpParserUpgrade as offer:
                    data = self._decline(data[offer.args[0] :])
                except httptools.HttpParserError as failure:
                    raise _refusal_of(failure) from None
            if self._awaited is not _NOTHING:
                self._check_unfinished()
        except ApiError as refusal:
            self._refuse(refusal)
            return
        if self._awaited is not self._measured:
            self._measure()

    def _await_head(self) -> None:
        self._awaited = _HEAD
        self._received = 0
        self.url, self.headers = b"", []
        if self._measured is not _NOTHING:
            self._measured = None

    def _check_unfinished(self) -> None:
        """Check what has come of a call that is not complete. Raises ApiError."""
        if self._awaited is _HEAD and self._received > MAX_HEAD_BYTES:
            raise too_large_head(is_url=not self.headers)
        if self._awaited is _BODY and self._bodiless_bytes > MAX_HEAD_BYTES:
            raise too_large_head(is_url=False)

    def _decline(self, rest: bytes) -> bytes:
        """Begin the call again without its offer to upgrade, because the parser takes what follows for no HTTP."""
        head, self._plain_head = self._plain_head, b""
        if not head:
            raise ApiError(ErrorType.VALIDATION, _MALFORMED)  # CONNECT
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self._await_head()
        return head + rest

    def on_message_begin(self) -> None:
        if self._awaited is not _HEAD:  # behind another call in the same segment
            self._await_head()
        super().on_message_begin()  # comes last, because the scope refers to the list of headers that it makes

    def on_headers_complete(self) -> None:
        if self._segment_bytes > MAX_HEAD_BYTES or self._received > MAX_HEAD_BYTES:
            check_head(self.url, self.headers)
        if self.parser.should_upgrade():
            method, version = self.parser.get_method(), self.parser.get_http_version()
            if method != b"CONNECT":
                self._plain_head = without_upgrade(method, self.url, version, self.headers)
            return
        super().on_headers_complete()
        self._awaited = _BODY
        self._bodiless_bytes = 0
        cycle = self.cycle
        if self._shared.draining:
            cycle.keep_alive = False
        ClientConnection(cycle, self._disconnect_callbacks).put_into(self.scope)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        if cycle.scope["http_version"] in _OLD_VERSIONS:
            app = Unchunked(cast(ASGIApp, app), cycle)
        super()._start_asgi_task(cycle, app)

    def on_body(self, body: bytes) -> None:
        self._bodiless_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        if self.parser.should_upgrade():
            return
        super().on_message_complete()
        self._awaited = _NOTHING

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if not (self.pipeline or self.transport.is_closing()):
            self._shared.idle[self] = None

    # what is refused here

    def send_400_response(self, msg: str) -> None:
        self._refuse(ApiError(ErrorType.VALIDATION, msg))

    def _refuse(self, refusal: ApiError) -> None:
        """Answer a call that does not reach the application, and close the connection.

        While the responses to earlier calls are under way, the last of them closes the connection instead.
        """
        self._refused = True
        self._shared.finish(self)
        cycle, transport = self.cycle, self.transport
        if transport.is_closing():
            return
        self._refusals.count(refusal.status, str(refusal.code or "malformed_http"), "", "")
        if self._awaited is _BODY and cycle.response_complete:
            transport.close()  # the call has been answered already
            return
        is_own = self._awaited is _BODY and not self.pipeline and not cycle.response_started
        if self._is_responding and not is_own:
            cycle.keep_alive = False
            return
        if self._is_responding:
            cycle.disconnected = True
            cycle.message_event.set()
        transport.write(self._response(refusal))
        if transport.can_write_eof():
            transport.write_eof()
        self._lingering = self.loop.call_later(_LINGER_SECS, transport.abort)

    def _response(self, refusal: ApiError) -> bytes:
        """Return the response, in the form of the path and for the page's origin as far as they have arrived."""
        path, rid = _path_of(self.url), new_request_id("req-")
        body = error_body(path, refusal, rid)
        origin = {name.decode(): value.decode("latin-1") for name, value in self.headers if name == b"origin"}
        headers = [
            *((name.encode(), value.encode()) for name, value in refusal.headers().items()),
            *((name, rid.encode()) for name in id_headers(path)),
            *SECURITY,
            *self._cors.response_headers(origin),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
        ]
        lines = [b"HTTP/1.1 %d %b" % (refusal.status, HTTPStatus(refusal.status).phrase.encode())]
        return b"\r\n".join((*lines, *(b"%b: %b" % header for header in headers), b"", body))


def _path_of(url: bytes) -> str:
    """Return the path of a URL, which may be incomplete; '' for none."""
    try:
        # The parser takes no URL beyond 64 KiB; an endpoint's path is far shorter.
        return without_slash_at_end(unquote(httptools.parse_url(url.partition(b"?")[0]).path.decode("latin-1")))
    except (httptools.HttpParserInvalidURLError, AttributeError):
        return ""


def _refusal_of(failure: httptools.HttpParserError) -> ApiError:
    """Return what a callback of the parser has raised, or the refusal of what the parser does not understand."""
    raised = failure.__context__
    return raised if isinstance(raised, ApiError) else ApiError(ErrorType.VALIDATION, _MALFORMED)
