"""Auto-pipelining: what callers share, and what they do not share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress

import pytest
from redis.exceptions import ResponseError

from lifecycle.errors import StoreUnavailable
from lifecycle.local.embedded_redis import EmbeddedRedis
from lifecycle.settings import Settings
from lifecycle.store.link import Link, Reply
from lifecycle.store.redis import Commands, make_client
from tests.conftest import connect
from tests.waiting import wait_until

TIMEOUT_SECS = 3.0
_FAILING = ("LSET", "no-such-list", "0", "x")


@pytest.fixture
async def commands(settings: Settings) -> AsyncIterator[Commands]:
    commands = connect(settings)
    yield commands
    await commands.aclose()


@pytest.fixture
async def observer(settings: Settings) -> AsyncIterator[Commands]:
    """Another connection to the same server."""
    observer = connect(settings)
    yield observer
    await observer.aclose()


async def _id(commands: Commands) -> int:
    return int(await commands.execute("CLIENT", "ID"))


class Counting:
    """Counts the pipelines that are sent, probes excepted."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.pipelines = 0
        send = Link.send

        def counted(link: Link, commands: Sequence[bytes], replies: Sequence[Reply]) -> None:
            self.pipelines += b"PING" not in commands[0]
            send(link, commands, replies)

        patch.setattr(Link, "send", counted)


async def test_concurrent_commands_share_a_pipeline(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    commands, counting = connect(settings), Counting(monkeypatch)
    replies = await asyncio.gather(*(commands.execute("ECHO", str(number)) for number in range(100)))
    assert replies == [str(number).encode() for number in range(100)]
    assert counting.pipelines == 1
    assert len(set(await asyncio.gather(*(_id(commands) for _ in range(20))))) == 1, "over one connection"
    await commands.aclose()


async def test_what_comes_while_a_pipeline_is_under_way_is_the_next_one(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands, counting = connect(settings), Counting(monkeypatch)
    first = asyncio.create_task(commands.execute("ECHO", "1"))
    while counting.pipelines == 0:
        await asyncio.sleep(0)
    await asyncio.gather(first, *(commands.execute("ECHO", "2") for _ in range(50)))
    assert counting.pipelines == 2
    await commands.aclose()


async def test_an_error_of_one_command_is_only_its_own(commands: Commands) -> None:
    sent = (("ECHO", "one"), _FAILING, ("ECHO", "two"))
    replies = await asyncio.gather(*(commands.execute(*command) for command in sent), return_exceptions=True)
    assert isinstance(replies[1], ResponseError)
    assert replies[::2] == [b"one", b"two"]


async def test_many_are_answered_in_order_and_the_first_failure_is_raised(commands: Commands) -> None:
    assert await commands.execute_many([("ECHO", "a"), ("ECHO", "b")]) == [b"a", b"b"]
    with pytest.raises(ResponseError):
        await commands.execute_many([("ECHO", "a"), _FAILING, ("ECHO", "b")])


async def test_replies_are_as_redis_gives_them(commands: Commands, namespace: str) -> None:
    """Replies are not parsed by the name of their command: every client reads a script's reply in the same way."""
    key = f"{namespace}:{{0}}:totals"
    await commands.execute("HSET", key, "field", "1")
    assert await commands.execute("HGETALL", key) == [b"field", b"1"]


async def test_a_lost_connection_fails_all_that_was_under_way_and_the_next_call_works() -> None:
    with EmbeddedRedis() as server:
        commands, observer = (Commands(make_client(server.url, socket_timeout_secs=10.0)) for _ in range(2))
        client_id = await _id(commands)
        # While writes are paused nothing is answered, so that all of them are under way when the connection goes.
        await observer.execute("CLIENT", "PAUSE", "60000", "WRITE")
        calls = [asyncio.create_task(commands.execute("PUBLISH", "nobody", number)) for number in range(10)]
        await wait_until(lambda: _is_blocked(observer, client_id))
        assert await observer.execute("CLIENT", "KILL", "ID", client_id) == 1
        failures = await asyncio.gather(*calls, return_exceptions=True)
        assert [type(failure) for failure in failures] == [StoreUnavailable] * 10
        assert await commands.execute("PING") == b"PONG"
        assert await _id(commands) != client_id
        await commands.aclose()
        await observer.aclose()


async def _is_blocked(observer: Commands, client_id: int) -> bool:
    """The flag `b`: the client waits, here for the end of the pause."""
    listing = (await observer.execute("CLIENT", "LIST", "ID", client_id)).decode()
    fields = dict(word.partition("=")[::2] for word in listing.split())
    return "b" in fields["flags"]


async def test_an_idle_connection_that_was_closed_is_noticed_by_the_next_call_at_the_latest(
    commands: Commands, observer: Commands
) -> None:
    await observer.execute("CLIENT", "KILL", "ID", await _id(commands))

    async def works() -> bool:
        try:
            return bool(await commands.execute("PING") == b"PONG")
        except StoreUnavailable:
            return False

    await wait_until(works, timeout=2.0)


async def test_a_server_that_is_gone_is_unavailable_until_it_is_back(settings: Settings) -> None:
    with EmbeddedRedis() as server:
        commands = Commands(make_client(server.url, socket_timeout_secs=1.0))
        assert await commands.execute("PING") == b"PONG"
        server.kill()
        for _ in range(2):
            with pytest.raises(StoreUnavailable):
                await commands.execute("PING")
        server.start()
        assert await commands.execute("PING") == b"PONG"
        await commands.aclose()


async def test_a_server_that_does_not_answer_is_unavailable_after_the_timeout() -> None:
    with EmbeddedRedis() as server:
        commands = Commands(make_client(server.url, socket_timeout_secs=0.2))
        await commands.execute("PING")
        server.freeze()
        with pytest.raises(StoreUnavailable):
            await commands.execute("PING")
        server.thaw()
        assert await commands.execute("ECHO", "mine") == b"mine", "not the late answer to what was given up"
        await commands.aclose()


async def test_a_cancelled_caller_disturbs_nobody(commands: Commands) -> None:
    calls = [asyncio.create_task(commands.execute("ECHO", str(number))) for number in range(30)]
    await asyncio.sleep(0)  # they have handed in their commands and wait
    for call in calls[::3]:
        call.cancel()
    replies = await asyncio.gather(*calls, return_exceptions=True)
    for number, reply in enumerate(replies):
        if number % 3 == 0:
            assert isinstance(reply, asyncio.CancelledError)
        else:
            assert reply == str(number).encode()
    assert await commands.execute("ECHO", "still in step") == b"still in step"


async def test_callers_cancelled_under_way_leave_the_replies_in_step(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands, counting = connect(settings), Counting(monkeypatch)
    calls = [asyncio.create_task(commands.execute("ECHO", str(number))) for number in range(30)]
    while counting.pipelines == 0:
        await asyncio.sleep(0)
    for call in calls[::2]:
        call.cancel()
    replies = await asyncio.gather(*calls, return_exceptions=True)
    assert replies[1::2] == [str(number).encode() for number in range(1, 30, 2)]
    assert await commands.execute("ECHO", "still in step") == b"still in step"
    await commands.aclose()


async def test_closing_fails_what_waits_and_what_comes(settings: Settings) -> None:
    commands = connect(settings)
    waiting = [asyncio.create_task(commands.execute("PING")) for _ in range(5)]
    await asyncio.sleep(0)
    await commands.aclose()
    replies = await asyncio.gather(*waiting, return_exceptions=True)
    assert all(reply == b"PONG" or isinstance(reply, StoreUnavailable) for reply in replies)
    with pytest.raises(StoreUnavailable, match="closed"):
        await commands.execute("PING")


async def test_nobody_waits_for_a_server_that_is_known_to_be_away() -> None:
    """The first call runs into the timeout; those behind it are told at once, and nothing of theirs is sent later."""
    with EmbeddedRedis() as server:
        commands = Commands(make_client(server.url, socket_timeout_secs=TIMEOUT_SECS))
        await commands.execute("PING")
        server.freeze()
        with pytest.raises(StoreUnavailable):
            await commands.execute("INCR", "first")
        async with asyncio.timeout(TIMEOUT_SECS / 2):
            for _ in range(5):
                with pytest.raises(StoreUnavailable):
                    await commands.execute("INCR", "told-at-once")
        server.thaw()

        async def back() -> bool:
            with suppress(StoreUnavailable):
                return bool(await commands.execute("PING") == b"PONG")
            return False

        await wait_until(back)
        assert await commands.execute("EXISTS", "told-at-once") == 0
        await commands.aclose()


async def test_a_link_that_is_lost_in_the_turn_of_its_first_answer_is_not_used(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over TLS an answer and the end of the connection come in one turn."""
    received, hung_up = Link.data_received, False

    def answers_and_hangs_up(link: Link, data: bytes) -> None:
        nonlocal hung_up
        received(link, data)
        if not hung_up:
            hung_up = True
            link.eof_received()

    monkeypatch.setattr(Link, "data_received", answers_and_hangs_up)
    commands = connect(settings)
    async with asyncio.timeout(TIMEOUT_SECS):
        with pytest.raises(StoreUnavailable):
            await commands.execute("ECHO", "into the void")
        assert await commands.execute("ECHO", "anew") == b"anew"
    await commands.aclose()


async def test_a_server_that_was_demoted_is_left() -> None:
    """A new connection may lead to the primary: by a name, or by Sentinels."""
    with EmbeddedRedis() as server:
        commands, observer = (Commands(make_client(server.url, socket_timeout_secs=2.0)) for _ in range(2))
        before = await _id(commands)
        await observer.execute("REPLICAOF", "127.0.0.1", "1")
        with pytest.raises(StoreUnavailable):
            await commands.execute("SET", "key", "value")
        assert await _id(commands) != before
        await observer.execute("REPLICAOF", "NO", "ONE")
        assert await commands.execute("SET", "key", "value") == b"OK"
        await commands.aclose()
        await observer.aclose()
