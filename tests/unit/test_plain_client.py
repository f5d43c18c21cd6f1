"""The client without asyncio, before a server that begins a stream and says nothing more."""

from __future__ import annotations

import asyncio
import gc
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest

import lifecycle
from tests.waiting import block_until

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"
EVENT = b'id: 1-1\ndata: "first"\n\n'


class Silent(NamedTuple):
    """A server that answers a stream with one event, other calls with nothing, and ends no answer."""

    url: str
    connections: list[socket.socket]  # one for each call


@pytest.fixture
def silent() -> Iterator[Silent]:
    """Provide such a server."""
    connections: list[socket.socket] = []

    def serve(server: socket.socket) -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            if b"/stream" in connection.recv(65_536):
                connection.sendall(HEAD + EVENT)
            connections.append(connection)

    with socket.create_server(("127.0.0.1", 0)) as server:
        serving = threading.Thread(target=serve, args=(server,), daemon=True)
        serving.start()
        yield Silent(f"http://127.0.0.1:{server.getsockname()[1]}", connections)
        server.shutdown(socket.SHUT_RDWR)
    serving.join(10)
    for connection in connections:
        connection.close()


def test_closing_ends_the_calls_and_streams_that_other_threads_wait_for(silent: Silent) -> None:
    client = lifecycle.Client(silent.url)
    ends: dict[str, str] = {}

    def note_end(name: str, call: Callable[[], object]) -> None:
        try:
            call()
        except lifecycle.Unavailable as failure:
            ends[name] = failure.message

    calls: dict[str, Callable[[], object]] = {
        "get": lambda: client.get("r"),
        "stream": lambda: list(client.stream("r")),
        "requests": lambda: list(client.requests()),
    }
    threads = [threading.Thread(target=note_end, args=call, daemon=True) for call in calls.items()]
    for thread in threads:
        thread.start()
    block_until(lambda: len(silent.connections) == len(calls), "the calls")
    client.close()
    client.close()
    for thread in threads:
        thread.join(10)
    # The stream may be between its first event and the wait for the next one.
    assert ends.pop("stream") in ("this client was closed", "this client is closed")
    assert ends == dict.fromkeys(("get", "requests"), "this client was closed")
    with pytest.raises(lifecycle.Unavailable, match="closed"):
        client.get("r")


def test_a_stream_that_is_left_may_be_closed_behind_its_client(silent: Silent) -> None:
    with lifecycle.Client(silent.url) as client:
        events = client.stream("r")
        assert next(events) == "first"
    events.close()


def test_ctrl_c_while_a_stream_waits_ends_the_stream_alone(silent: Silent) -> None:
    with lifecycle.Client(silent.url) as client:
        events = client.stream("r")
        assert next(events) == "first"
        main = threading.main_thread()

        def interrupt() -> None:
            block_until(lambda: asyncio.all_tasks(client._loop), "the call")
            signal.pthread_kill(main.ident or 0, signal.SIGINT)

        thread = threading.Thread(target=interrupt)
        thread.start()
        with pytest.raises(KeyboardInterrupt):
            next(events)
        thread.join(10)
        assert not asyncio.all_tasks(client._loop)
        assert next(client.stream("r")) == "first"


def test_a_forgotten_stream_that_the_garbage_collector_finds_in_any_thread_is_closed(silent: Silent) -> None:
    with lifecycle.Client(silent.url) as client:
        cycle: list[object] = [events := client.stream("r")]
        assert next(events) == "first"
        cycle.append(cycle)
        gc.disable()
        try:
            del cycle, events
            client._loop.call_soon_threadsafe(gc.collect)
            (connection,) = silent.connections
            connection.settimeout(10)
            assert connection.recv(1) == b""
        finally:
            gc.enable()
        assert next(client.stream("r")) == "first"
