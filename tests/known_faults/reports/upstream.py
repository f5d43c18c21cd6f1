"""A scripted OpenAI-compatible upstream: what each call is answered is decided by the text of its last message.

    with Upstream() as upstream:
        upstream.play("my text", lambda call: [STREAM_HEAD, chunk({"content": "hi"}, "stop"), DONE])

A script is a function of the call that yields raw bytes; the connection closes behind them. It runs in the thread of
its connection, so it may wait (for a `threading.Event`, or to pace what it sends).
"""

from __future__ import annotations

import json
import socket
import socketserver
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Self

STREAM_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
DONE = b"data: [DONE]\n\n"
_MODELS = json.dumps({"object": "list", "data": [{"id": "upstream", "object": "model", "owned_by": "test"}]})
_NOT_FOUND = json.dumps({"error": {"message": "The test has no script for this call", "code": "not_found"}})


@dataclass
class Call:
    """One call as the upstream received it."""

    method: str
    path: str  # with its query
    headers: dict[str, str]  # names in lower case
    body: bytes
    client_left: threading.Event = field(default_factory=threading.Event)  # noticed by a write that failed

    @property
    def text(self) -> str:
        """The text of the last message, or "" when there is none."""
        try:
            return str(json.loads(self.body)["messages"][-1]["content"])
        except (ValueError, KeyError, IndexError, TypeError):
            return ""


Script = Callable[[Call], Iterable[bytes]]


def chunk(delta: dict[str, Any] | None = None, finish_reason: str | None = None, **fields: Any) -> bytes:
    """Return one event of a chat stream; without a delta and a finish reason it has no choices."""
    none = delta is None and finish_reason is None
    choices = [] if none else [{"index": 0, "delta": delta or {}, "finish_reason": finish_reason}]
    body = {"id": "u", "object": "chat.completion.chunk", "choices": choices, **fields}
    return b"data: " + json.dumps(body).encode() + b"\n\n"


def whole(status: str, body: str, kind: str = "application/json", **headers: str) -> bytes:
    """Return a complete response: `whole("429 Too Many Requests", "{}", Retry_After="7")`."""
    named = {"Content-Type": kind, "Content-Length": str(len(body.encode())), "Connection": "close"} | {
        name.replace("_", "-"): value for name, value in headers.items()
    }
    head = "\r\n".join([f"HTTP/1.1 {status}", *(f"{name}: {value}" for name, value in named.items())])
    return f"{head}\r\n\r\n{body}".encode()


class Upstream:
    """The server, in threads of its own, on a free port of this machine."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self._scripts: dict[str, Script] = {}
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.upstream = self
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        """The URL with `/v1`, as the `openai` engine expects it."""
        return f"http://127.0.0.1:{self.port}/v1"

    def play(self, text: str, script: Script) -> None:
        """Answer calls whose last message is `text` with this script from now on."""
        self._scripts[text] = script

    def calls_of(self, text: str) -> list[Call]:
        return [call for call in self.calls if call.text == text]

    def answer(self, call: Call) -> Iterable[bytes]:
        """Record the call and return what its script sends; the list of models needs no script."""
        self.calls.append(call)
        if call.path.partition("?")[0].endswith("/models"):
            return [whole("200 OK", _MODELS)]
        script = self._scripts.get(call.text)
        return script(call) if script is not None else [whole("404 Not Found", _NOT_FOUND)]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    block_on_close = False  # a script that waits for ever must not hold the end of the test run
    allow_reuse_address = True
    upstream: Upstream


class _Handler(socketserver.StreamRequestHandler):
    disable_nagle_algorithm = True

    def handle(self) -> None:
        assert isinstance(self.server, _Server)
        assert isinstance(self.connection, socket.socket)
        call = self._read()
        if call is None:
            return
        try:
            for piece in self.server.upstream.answer(call):
                self.connection.sendall(piece)
        except OSError:
            call.client_left.set()

    def _read(self) -> Call | None:
        """Return the call, or None when the client leaves before its end."""
        try:
            request_line = self.rfile.readline().decode("latin-1").split()
            headers: dict[str, str] = {}
            while line := self.rfile.readline().decode("latin-1").strip():
                name, _, value = line.partition(":")
                headers[name.strip().lower()] = value.strip()
            if len(request_line) != 3:
                return None
            body = self.rfile.read(int(headers.get("content-length", 0)))
        except OSError:
            return None
        return Call(request_line[0], request_line[1], headers, body)
