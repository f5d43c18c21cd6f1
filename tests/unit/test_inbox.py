"""An inbox hears what is pushed, tells of each gap, and looks for another server when its own has nothing to say."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from redis.asyncio import Redis

from lifecycle.aio import tasks
from lifecycle.settings import Settings
from lifecycle.store.listener import ConnectionFactory
from lifecycle.store.redis import make_client
from lifecycle.store.shared_link import SharedLinks
from lifecycle.store.transitions import Store
from lifecycle.tokens.encoded_events import EncodedEvents
from lifecycle.tokens.inbox import Inbox, _items
from tests.waiting import wait_until


class Heard:
    """Records the items and gaps that an inbox delivers."""

    def __init__(self) -> None:
        self.items: list[tuple[str, str, Any]] = []
        self.gaps = 0

    def item(self, rid: str, entry_id: str, payload: Any, _: str = "") -> None:
        if payload == "trouble":
            raise ValueError("one request's trouble")
        self.items.append((rid, entry_id, payload))

    def gap(self) -> None:
        self.gaps += 1

    async def gaps_are(self, number: int) -> None:
        await wait_until(lambda: self.gaps == number, what=f"{number} gaps")


@pytest.fixture
def heard() -> Heard:
    return Heard()


@asynccontextmanager
async def listening(settings: Settings, channel: str, heard: Heard, left: set[Any]) -> AsyncIterator[None]:
    client = make_client(settings.redis_url, socket_timeout_secs=2.0)

    async def same() -> Redis:
        return client

    running = asyncio.create_task(Inbox(ConnectionFactory(same, 2.0, left), channel, heard.item, heard.gap).run())
    try:
        await heard.gaps_are(1)  # what came before the first subscription was missed too
        yield
    finally:
        await tasks.end((running,))
        await client.aclose()
    assert not left, "nobody is told any more"


async def test_frames_are_handed_on_in_order_and_one_s_trouble_is_its_own(
    settings: Settings, store: Store, heard: Heard
) -> None:
    channel = store.keys.inbox(0, "f0")
    async with listening(settings, channel, heard, set()):
        for frame in (
            b'[["a","1-1",["x"]],["b","1-1","trouble"],["c","1-1",["y"]]]',
            b"garbage",
            b"{}",
            b'{"bytes":3,"items":[]}',
            b"7",
            b'[["a","1-2",["z"]]]',
        ):
            await store.command("SPUBLISH", channel, frame)
        await wait_until(lambda: len(heard.items) == 3)
    assert heard.items == [("a", "1-1", ["x"]), ("c", "1-1", ["y"]), ("a", "1-2", ["z"])]


def test_of_frames_that_came_together_a_request_s_consecutive_tokens_are_one_item() -> None:
    frames = [
        b'[["a","1-1",["a"]],["b","1-4",["x"]]]',
        b'[["a","1-3",["b","c"]],["b","1-6",["z"]],["c","1-1",["c"]]]',  # a gap in b
        b"garbage",
        b'[["a","1-4",["d"]],["a","1-4",{"type":"requeued"}],["a","2-5",["e"]],["c","2-2",["f"]]]',  # other attempts
        b'[["a","2-6",["f"]],["b","1-6",["z"]]]',  # a repetition
    ]
    assert _items(frames) == [
        ["a", "1-4", ["a", "b", "c", "d"]],
        ["b", "1-4", ["x"]],
        ["b", "1-6", ["z"]],
        ["c", "1-1", ["c"]],
        ["a", "1-4", {"type": "requeued"}],
        ["a", "2-6", ["e", "f"]],
        ["c", "2-2", ["f"]],
        ["b", "1-6", ["z"]],
    ]


async def test_long_tokens_are_a_message_of_their_own_behind_their_frame(
    settings: Settings, store: Store, heard: Heard
) -> None:
    channel, tokens = store.keys.inbox(0, "f0"), b'["x","y"]'
    head = b'{"bytes":9,"items":[["a","1-2",2,"n"],["a","1-2",{"type":"end"}]]}'
    async with listening(settings, channel, heard, set()):
        for message in (b'[["b","1-1",["z"],"n"]]', head, tokens, head, b'[["b","1-2",["z"],"n"]]', head, head, tokens):
            await store.command("SPUBLISH", channel, message)
        await wait_until(lambda: len(heard.items) == 8)
    assert [
        (rid, entry_id, payload if type(payload) is dict else [*payload]) for rid, entry_id, payload in heard.items
    ] == [
        ("b", "1-1", ["z"]),
        ("a", "1-2", ["x", "y"]),
        ("a", "1-2", {"type": "end"}),
        ("a", "1-2", {"type": "end"}),
        ("b", "1-2", ["z"]),
        ("a", "1-2", {"type": "end"}),
        ("a", "1-2", ["x", "y"]),
        ("a", "1-2", {"type": "end"}),
    ], "tokens that have not come are left out, which readers see by the numbers"


@pytest.mark.parametrize("others", [[], [b'[["a","1-1",["x"]]]']])
def test_tokens_whose_head_was_not_seen_are_one_line_of_the_log(
    others: list[bytes], caplog: pytest.LogCaptureFixture
) -> None:
    assert _items([b'["one","two","three"]', *others]) == [["a", "1-1", ["x"]] for _ in others]
    assert len(caplog.records) == 1


def test_events_that_are_decoded_late_are_checked_then() -> None:
    events = EncodedEvents(b'["x",{"a":1}]', 2)
    assert (len(events), events[0], events[1:], [*events]) == (2, "x", [{"a": 1}], ["x", {"a": 1}])
    assert events.only_object is None
    assert EncodedEvents(b'[{"a":1}]', 1).only_object == b'{"a":1}'
    for wrong in (EncodedEvents(b'["x"]', 2), EncodedEvents(b"7", 1), EncodedEvents(b"garbage", 1)):
        with pytest.raises(ValueError, match=r"."):
            list(wrong)


async def test_a_connection_that_was_cut_is_a_gap(settings: Settings, store: Store, heard: Heard) -> None:
    channel = store.keys.inbox(0, "f0")
    async with listening(settings, channel, heard, set()):
        await store.command("CLIENT", "KILL", "TYPE", "pubsub")
        await heard.gaps_are(2)
        await store.command("SPUBLISH", channel, b'[["a","1-1",["x"]]]')
        await wait_until(lambda: heard.items == [("a", "1-1", ["x"])])


async def test_a_server_that_is_left_is_listened_to_no_longer(settings: Settings, store: Store, heard: Heard) -> None:
    """It answers every probe, and may never hear what is pushed at its successor."""
    left: set[Any] = set()
    async with listening(settings, store.keys.inbox(0, "f0"), heard, left):
        (leave,) = left
        leave()
        await heard.gaps_are(2)


async def test_it_ends_when_it_is_told_to_while_there_is_no_server() -> None:
    async def nobody() -> Redis:
        raise ConnectionRefusedError

    inbox = Inbox(ConnectionFactory(nobody, 0.5, set()), "inbox", lambda *_: None, lambda: None)
    running = asyncio.create_task(inbox.run())
    await asyncio.sleep(0)
    async with asyncio.timeout(5.0):
        await tasks.end((running,))


async def test_inboxes_share_one_connection(settings: Settings, store: Store) -> None:
    client = make_client(settings.redis_url, socket_timeout_secs=2.0)

    async def same() -> Redis:
        return client

    factory = ConnectionFactory(same, 2.0, set(), SharedLinks())
    first, second = Heard(), Heard()
    channels = [store.keys.inbox(0, name) for name in ("f0", "f1")]
    inboxes = [
        Inbox(factory, channel, heard.item, heard.gap) for channel, heard in zip(channels, (first, second), strict=True)
    ]
    running = [asyncio.create_task(inbox.run()) for inbox in inboxes]

    async def subscribed() -> set[str]:
        clients = (await store.command("CLIENT", "LIST", "TYPE", "pubsub")).decode().splitlines()
        return {line.split("addr=")[1].split()[0] for line in clients if " ssub=0" not in line}

    async def publish(texts: list[str]) -> None:
        for channel, text in zip(channels, texts, strict=True):
            await store.command("SPUBLISH", channel, b'[["a","1-1",["%s"]]]' % text.encode())

    try:
        for heard in (first, second):
            await heard.gaps_are(1)
        assert len(await subscribed()) == 1
        await publish(["x", "y"])
        await wait_until(lambda: (first.items, second.items) == ([("a", "1-1", ["x"])], [("a", "1-1", ["y"])]))

        await store.command("CLIENT", "KILL", "TYPE", "pubsub")
        for heard in (first, second):
            await heard.gaps_are(2)
        assert len(await subscribed()) == 1

        moved = store.keys.inbox(0, "f0~1")
        inboxes[0].follow(moved)
        await first.gaps_are(3)
        channels[0] = moved
        await publish(["z", "z"])
        await wait_until(lambda: len(first.items) == len(second.items) == 2)

        await tasks.end(running[:1])
        await publish(["gone", "here"])
        await wait_until(lambda: len(second.items) == 3)
        assert (len(first.items), second.gaps) == (2, 2)
    finally:
        await tasks.end(running)
        await client.aclose()
    assert not await subscribed()
