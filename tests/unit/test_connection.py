"""A client's two handles report a disconnect once."""

from __future__ import annotations

import asyncio

import pytest

from lifecycle.tracking.connection import ConnectionHandle, ConnectionMonitor, ConnectionStatus

GRACEFULLY, UNEXPECTEDLY = ConnectionStatus.CLOSED_GRACEFULLY, ConnectionStatus.CLOSED_UNEXPECTEDLY


class _Client:
    def __init__(self) -> None:
        self.told: list[ConnectionStatus] = []
        self.connection, self.stream = ConnectionMonitor(self.told.append, asyncio.get_running_loop()).handles()


@pytest.fixture
async def client() -> _Client:
    return _Client()


async def test_a_response_that_never_began_is_the_connections(client: _Client) -> None:
    with client.stream, client.connection as connection:
        connection.disarm()
    assert client.told == [GRACEFULLY]


@pytest.mark.parametrize("disarmed", [True, False])
async def test_a_response_that_began_is_the_streams(client: _Client, disarmed: bool) -> None:
    client.stream.arm()
    client.connection.disarm()
    client.connection.close()
    assert client.told == []
    if disarmed:
        client.stream.disarm()
    client.stream.close()
    assert client.told == [GRACEFULLY if disarmed else UNEXPECTEDLY]


async def test_an_armed_handle_that_is_lost_is_a_loss(client: _Client) -> None:
    del client.connection
    await asyncio.sleep(0)
    assert client.told == [UNEXPECTEDLY]
    client.stream.close()
    del client.stream
    await asyncio.sleep(0)
    assert client.told == [UNEXPECTEDLY]


async def test_a_stream_that_is_lost_is_a_loss(client: _Client) -> None:
    client.stream.arm()
    client.connection.disarm()
    client.connection.close()
    del client.stream
    await asyncio.sleep(0)
    assert client.told == [UNEXPECTEDLY]


async def test_nothing_is_told_twice() -> None:
    told: list[ConnectionStatus] = []
    handle = ConnectionHandle(UNEXPECTEDLY, told.append, asyncio.get_running_loop())
    handle.close()
    handle.close()
    del handle
    await asyncio.sleep(0)
    assert told == [UNEXPECTEDLY]
