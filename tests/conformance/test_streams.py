"""Server-sent events: ids, resuming anywhere, several readers, what ends a stream, what a lost client does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from tests.cluster import Cluster, Process
from tests.conformance.calls import cancel, ended, endless, refusal, send
from tests.engines import STREAM_ENDED
from tests.sse import Event, Stream, chat, error_of, post, resume, text_of
from tests.waiting import wait_until

WORDS = " ".join(f"w{number}" for number in range(40))


def ids(events: list[Event]) -> list[str]:
    return [event.id for event in events if event.id is not None]


def numbered(first: int, last: int) -> list[str]:
    return [f"1-{number}" for number in range(first, last + 1)]


async def finished(cluster: Cluster, rid: str, text: str = WORDS) -> None:
    assert (await send(cluster, chat(text) | {"stream": False}, X_Request_Id=rid)).status_code == 200


# Events


async def test_one_event_a_token_each_with_its_id(cluster: Cluster, rid: str) -> None:
    async with post(cluster.http, cluster.frontends[0].url, chat(WORDS), X_Request_Id=rid) as stream:
        events = await stream.read()
    *tokens, finish, done = events
    assert ids(events) == numbered(1, 40)
    assert [event.text for event in tokens] == ["w0", *(f" w{number}" for number in range(1, 40))]
    assert [event.data["choices"][0]["finish_reason"] for event in tokens] == [None] * 40
    assert (finish.id, finish.data["choices"][0]["finish_reason"]) == (None, "stop")
    assert (done.id, done.data) == (None, "[DONE]")
    assert {event.data["id"] for event in events[:-1]} == {rid}
    assert all(event.event is None for event in events)


async def test_the_head_of_a_stream_goes_out_before_its_first_token(cluster: Cluster, rid: str) -> None:
    async with post(cluster.http, cluster.frontends[0].url, chat("0", "silent"), X_Request_Id=rid) as stream:
        assert stream.response.status_code == 200
        assert stream.response.headers["content-type"].startswith("text/event-stream")
        assert "no-cache" in stream.response.headers["cache-control"]
        assert stream.response.headers["x-request-id"] == rid
        await cancel(cluster, rid)
        assert ids(await stream.read()) == []


async def test_a_silent_stream_carries_keepalives(cluster: Cluster, rid: str) -> None:
    async with post(cluster.http, cluster.frontends[0].url, chat("1", "silent"), X_Request_Id=rid) as stream:
        await stream.read_tokens(1)
        reading = asyncio.create_task(stream.read())
        await wait_until(lambda: len(stream.comments) >= 2)
        await cancel(cluster, rid)
        events = await reading
    assert set(stream.comments) == {": keepalive"}
    assert ids(events) == ["1-1"]


# Resuming


@pytest.mark.parametrize("place", ["header", "query"])
@pytest.mark.parametrize("replica", [0, 1])
async def test_a_finished_stream_is_replayed_from_any_token_anywhere(
    cluster: Cluster, rid: str, replica: int, place: str
) -> None:
    await finished(cluster, rid)
    url = f"{cluster.frontends[replica].url}/v1/requests/{rid}/stream"
    for after in (0, 1, 17, 39):
        given: dict[str, dict[str, Any]] = {
            "header": {"headers": {"Last-Event-ID": f"1-{after}"}},
            "query": {"params": {"after": f"1-{after}"}},
        }
        async with cluster.http.stream("GET", url, **given[place]) as response:
            events = await Stream(response).read()
        assert ids(events) == numbered(after + 1, 40)
        assert error_of(events) is None
        assert events[-2].data["choices"][0]["finish_reason"] == "stop"


async def test_a_reader_that_has_the_last_event_is_told_so(cluster: Cluster, rid: str) -> None:
    await finished(cluster, rid)
    for frontend in cluster.frontends:
        response = await cluster.http.get(f"{frontend.url}/v1/requests/{rid}/stream?after=1-40")
        assert (response.status_code, response.content) == (204, b"")


async def test_the_header_wins_over_the_query(cluster: Cluster, rid: str) -> None:
    """A browser reconnects to the URL it was given, with the header of where it is by now."""
    await finished(cluster, rid)
    url = f"{cluster.frontends[0].url}/v1/requests/{rid}/stream?after=1-2"
    async with cluster.http.stream("GET", url, headers={"Last-Event-ID": "1-30"}) as response:
        assert ids(await Stream(response).read()) == numbered(31, 40)


async def test_without_a_place_a_stream_is_replayed_whole(cluster: Cluster, rid: str) -> None:
    await finished(cluster, rid)
    async with resume(cluster.http, cluster.frontends[1].url, rid) as stream:
        events = await stream.read()
    assert (text_of(events), ids(events)) == (WORDS, numbered(1, 40))
    assert events[0].data["choices"][0]["delta"] == {"role": "assistant", "content": "w0"}


async def test_reconnecting_again_and_again_gives_exactly_the_stream(cluster: Cluster, rid: str) -> None:
    """While it is being generated, at one replica after the other, a few tokens each time."""
    text = " ".join(f"w{number}" for number in range(120))
    read, last, events = "", "", []
    async with post(
        cluster.http, cluster.frontends[0].url, chat(text), X_Request_Id=rid, X_On_Disconnect="continue"
    ) as stream:
        read, last = await stream.read_tokens(4), ids(stream.events)[-1]
    for turn in range(1, 12):
        async with resume(cluster.http, cluster.frontends[turn % 2].url, rid, last) as stream:
            read += await stream.read_tokens(7)
            last = ids(stream.events)[-1]
        assert last == f"1-{4 + 7 * turn}"
    async with resume(cluster.http, cluster.frontends[0].url, rid, last) as stream:
        events = await stream.read()
    assert read + text_of(events) == text
    assert error_of(events) is None


async def test_many_readers_at_once_read_the_same(cluster: Cluster, rid: str) -> None:
    a, b = cluster.frontends

    async def follow(frontend: Process) -> list[Event]:
        async with resume(cluster.http, frontend.url, rid) as stream:
            return await stream.read()

    async with post(cluster.http, a.url, chat(WORDS), X_Request_Id=rid) as stream:
        await stream.read_tokens(1)
        async with asyncio.TaskGroup() as group:
            readers = [group.create_task(follow(frontend)) for frontend in (a, b, a, b, b)]
            own = group.create_task(stream.read())
    everyone = [own.result(), *(reader.result() for reader in readers)]
    assert all(ids(events) == numbered(1, 40) and text_of(events) == WORDS for events in everyone)
    assert all(error_of(events) is None for events in everyone)


@pytest.mark.parametrize("frontend", [0, 1])
async def test_a_reader_at_the_end_of_what_there_is_follows_live(cluster: Cluster, rid: str, frontend: int) -> None:
    async with post(cluster.http, cluster.frontends[0].url, chat("2", "silent"), X_Request_Id=rid) as stream:
        await stream.read_tokens(2)
        async with resume(cluster.http, cluster.frontends[frontend].url, rid, "1-2") as follower:
            await cancel(cluster, rid, reason="over")
            error = error_of(await follower.read())
        assert error is not None
        assert error["message"] == "over"
        await stream.read()


@pytest.mark.parametrize("after", ["1-99", "7-41", "1-9223372036854775807"])
async def test_going_on_behind_the_end_is_state_lost(cluster: Cluster, rid: str, after: str) -> None:
    """Somebody has read what the stream no longer has: nothing that could follow would fit."""
    await finished(cluster, rid)
    async with resume(cluster.http, cluster.frontends[1].url, rid, after) as stream:
        events = await stream.read()
    error = error_of(events)
    assert ids(events) == []
    assert error is not None
    assert (error["type"], error["code"], error["error_type"]) == ("service_unavailable", 503, "state_lost")


@pytest.mark.parametrize("after", ["7", "1-", "-1", "1-2-3", "a-b", "1_2", "１-２", "1-" + "9" * 30, " "])
async def test_a_malformed_place_is_400(cluster: Cluster, rid: str, after: str) -> None:
    await finished(cluster, rid, "x")
    url = f"{cluster.frontends[0].url}/v1/requests/{rid}/stream"
    refusal(await cluster.http.get(url, params={"after": after}), 400)
    if after.isascii() and after.strip():
        refusal(await cluster.http.get(url, headers={"Last-Event-ID": after}), 400)


async def test_a_completion_is_replayed_as_one(cluster: Cluster, rid: str) -> None:
    body = {"model": "echo", "prompt": "a b"}
    await cluster.http.post(cluster.frontends[0].url + "/v1/completions", json=body, headers={"X-Request-Id": rid})
    async with resume(cluster.http, cluster.frontends[1].url, rid) as stream:
        events = await stream.read()
    assert text_of(events) == "a b"
    assert {event.data["object"] for event in events[:-1]} == {"text_completion"}


# Ends


async def test_every_reader_gets_the_engines_error_frame(cluster: Cluster, rid: str) -> None:
    async with post(cluster.http, cluster.frontends[0].url, chat(STREAM_ENDED, "raiser"), X_Request_Id=rid) as stream:
        live = await stream.read()
    async with resume(cluster.http, cluster.frontends[1].url, rid, "1-2") as stream:
        late = await stream.read()
    frame = {
        "message": STREAM_ENDED,
        "type": "internal_server_error",
        "code": 500,
        "param": None,
        "error_type": "internal",
        "request_id": rid,
    }
    assert error_of(live) == error_of(late) == frame
    assert (ids(live), ids(late)) == (numbered(1, 3), ["1-3"])


async def test_nothing_follows_a_kill(cluster: Cluster, rid: str) -> None:
    async with post(cluster.http, cluster.frontends[0].url, endless(), X_Request_Id=rid) as stream:
        await stream.read_tokens(5)
        record = (await cancel(cluster, rid, cluster.frontends[1])).json()
        events = await stream.read()
    async with resume(cluster.http, cluster.frontends[1].url, rid) as again:
        replayed = await again.read()
    assert ids(replayed) == ids(events) == numbered(1, record["output_tokens"])
    assert (
        error_of(replayed)
        == error_of(events)
        == {
            "message": record["cancel_reason"],
            "type": "request_cancelled",
            "code": 499,
            "param": None,
            "error_type": "cancelled",
            "request_id": rid,
        }
    )


# Disconnects


async def test_a_request_told_to_continue_outlives_its_client(cluster: Cluster, rid: str) -> None:
    a, b = cluster.frontends
    async with post(cluster.http, a.url, chat(WORDS), X_Request_Id=rid, X_On_Disconnect="continue") as stream:
        before = await stream.read_tokens(3)
    async with resume(cluster.http, b.url, rid, "1-3") as stream:
        assert before + text_of(await stream.read()) == WORDS
    record = await ended(cluster, rid)
    assert (record["status"], record["on_disconnect"], record["output_tokens"]) == ("completed", "continue", 40)


async def test_a_reader_that_goes_takes_nothing_along(cluster: Cluster, rid: str) -> None:
    """The client that asked is still there."""
    async with post(cluster.http, cluster.frontends[0].url, chat(WORDS), X_Request_Id=rid) as stream:
        await stream.read_tokens(1)
        async with resume(cluster.http, cluster.frontends[1].url, rid) as other:
            await other.read_tokens(1)
        events = await stream.read()
    assert (text_of(events), error_of(events)) == (WORDS, None)


async def test_while_somebody_reads_elsewhere_the_clients_disconnect_cancels_nothing(
    cluster: Cluster, rid: str
) -> None:
    a, b = cluster.frontends
    async with post(cluster.http, a.url, chat(WORDS), X_Request_Id=rid) as stream:
        await stream.read_tokens(1)
        async with resume(cluster.http, b.url, rid) as other:
            await other.read_tokens(1)
            await stream.response.aclose()
            await other.read()
            assert (text_of(other.events), error_of(other.events)) == (WORDS, None)


async def test_the_last_reader_to_go_cancels(cluster: Cluster, rid: str) -> None:
    a, b = cluster.frontends
    async with post(cluster.http, a.url, endless(), X_Request_Id=rid) as stream:
        await stream.read_tokens(1)
        async with resume(cluster.http, b.url, rid) as other:
            await other.read_tokens(1)
            await stream.response.aclose()
            await other.read_tokens(20)
            assert (await cluster.record(rid))["cancel_requested_at"] is None
    assert (await ended(cluster, rid))["status"] == "cancelled"


async def test_a_reader_that_comes_back_within_the_grace_saves_the_request(cluster: Cluster, rid: str) -> None:
    a, b = cluster.frontends
    async with post(cluster.http, a.url, chat(WORDS), X_Request_Id=rid, X_Disconnect_Grace_Secs="60") as stream:
        before = await stream.read_tokens(3)
    async with resume(cluster.http, b.url, rid, "1-3") as stream:
        assert before + text_of(await stream.read()) == WORDS
    record = await ended(cluster, rid)
    assert (record["status"], record["cancel_requested_at"]) == ("completed", None)


async def test_a_reader_that_does_not_come_back_within_the_grace_cancels_once(
    cluster: Cluster, new_id: Callable[[], str]
) -> None:
    a = cluster.frontends[0]
    before = [await cluster.metric(f"lifecycle_{name}_total", a) for name in ("cancellations", "client_disconnects")]
    rid = new_id()
    async with post(cluster.http, a.url, endless(), X_Request_Id=rid, X_Disconnect_Grace_Secs="0.5") as stream:
        await stream.read_tokens(1)
    record = await ended(cluster, rid)
    assert (record["status"], record["cancel_mode"]) == ("cancelled", "kill")
    assert record["cancel_requested_at"] - record["created_at"] >= 0.5
    after = [await cluster.metric(f"lifecycle_{name}_total", a) for name in ("cancellations", "client_disconnects")]
    assert [now - then for now, then in zip(after, before, strict=True)] == [1, 1]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("X-On-Disconnect", "maybe"),
        ("X-On-Disconnect", ""),
        ("X-Disconnect-Grace-Secs", "a while"),
        ("X-Disconnect-Grace-Secs", "-1"),
        ("X-Disconnect-Grace-Secs", "nan"),
        ("X-Disconnect-Grace-Secs", "inf"),
    ],
)
async def test_a_malformed_wish_is_400(cluster: Cluster, rid: str, name: str, value: str) -> None:
    answer = await send(cluster, chat("x"), None, **{"X-Request-Id": rid, name: value})
    assert refusal(answer, 400)["param"] == name
    refusal(await cluster.http.get(f"{cluster.frontends[0].url}/v1/requests/{rid}"), 404)


async def test_a_resumed_stream_has_the_usage_that_its_call_asked_for(cluster: Cluster) -> None:
    asked = chat("one two three", stream_options={"include_usage": True})
    whole = await cluster.http.post(cluster.frontends[0].url + "/v1/chat/completions", json=asked)
    rid, blocks = whole.headers["x-request-id"], whole.text.split("\n\n")
    url = f"{cluster.frontends[1].url}/v1/requests/{rid}/stream"
    assert '"choices":[],"usage":{' in whole.text
    assert (await cluster.http.get(url)).text == whole.text
    behind = await cluster.http.get(url, headers={"Last-Event-ID": "1-1"})
    assert behind.text == "\n\n".join(blocks[1:])
