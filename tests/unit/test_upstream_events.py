"""Reading events and error messages of an upstream, and the ids that the openai engine sends to it."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifecycle.ids import is_request_id
from worker.engines.openai import upstream_request_id
from worker.engines.sse import MAX_EVENT_BYTES, EventTooLong, ServerSentEvent, SseParser
from worker.engines.upstream_errors import error_message

WIRE = (
    ": keepalive\n\n"
    'event: message\r\ndata: {"a":"käse"}\r\n\r\n'
    "data:one\ndata: two\nid: 3\nretry: 1\nnonsense\n\n\n"
    "event: error\n: lost the stream\n\n"
    "event: ping\n\n"
    "data: [DONE]\n\n"
).encode()
WIRES = [
    WIRE,
    b"\xef\xbb\xbf" + WIRE,
    WIRE.replace(b"\r\n", b"\n").replace(b"\n", b"\r"),
    WIRE.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n"),
]
EVENTS = [
    ServerSentEvent('{"a":"käse"}'.encode(), b"message"),
    ServerSentEvent(b"one\ntwo"),
    ServerSentEvent(b"lost the stream", b"error"),
    ServerSentEvent(b"[DONE]"),
]


@given(st.sampled_from(WIRES), st.lists(st.integers(0, len(WIRE))))
def test_events_do_not_depend_on_where_the_stream_is_cut(wire: bytes, cuts: list[int]) -> None:
    parser = SseParser()
    edges = [0, *sorted(cuts), len(wire)]
    pieces = [wire[a:b] for a, b in itertools.pairwise(edges)]
    assert [event for piece in pieces for event in parser.feed(piece)] == EVENTS
    assert parser.end() == []


def test_an_event_without_its_blank_line_counts_at_the_end() -> None:
    parser = SseParser()
    assert parser.feed(b"data: [DONE]") == []
    assert parser.end() == [ServerSentEvent(b"[DONE]")]


@pytest.mark.parametrize("wire", [b"data: " + b"x" * 4096, b"data: " + b"x" * 4096 + b"\n"])
def test_an_event_has_a_bounded_length(wire: bytes) -> None:
    parser = SseParser()
    fits, too_many = MAX_EVENT_BYTES // len(wire), 10

    def feed(count: int) -> None:
        for _ in range(count):
            parser.feed(wire)

    feed(fits)
    with pytest.raises(EventTooLong):
        feed(too_many)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"error":{"message":"too long","type":"x"}}', "too long"),
        (b'{"error":"not loaded"}', "not loaded"),
        (b'{"object":"error","message":"bad"}', "bad"),
        (b'{"detail":"Not Found"}', "Not Found"),
        (b'{"detail":[{"loc":["body"]}]}', '[{"loc":["body"]}]'),
        (b'{"error":{"code":7}}', '{"code":7}'),
        (b"Bad Gateway\n", "Bad Gateway"),
        (b"<html><body>Bad Gateway</body></html>", ""),
        (b"\xff", "\N{REPLACEMENT CHARACTER}"),
        (b"{}", ""),
        (b"", ""),
    ],
)
def test_finds_the_upstreams_own_words(body: bytes, message: str) -> None:
    assert error_message(body) == message


def test_the_upstreams_request_id_is_valid_and_differs_for_each_attempt() -> None:
    ids = ["a", "a" * 126, "a" * 127, "a" * 127 + "b", "a" * 127 + "c"]
    made = [upstream_request_id(id, attempt) for id in ids for attempt in (1, 2, 100)]
    assert made[0] == "a.1"
    assert all(map(is_request_id, made))
    assert len(set(made)) == len(made)
