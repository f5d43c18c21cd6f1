"""Calls of one script that are sent together become one call, and each caller gets its own answer."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from redis.exceptions import NoScriptError, ResponseError

from lifecycle.errors import StoreUnavailable
from lifecycle.store import script_loader
from lifecycle.store.arguments import pack
from lifecycle.store.merged_calls import BYTES_LIMIT, CALLS_LIMIT, Call, merge, only_reply

FINISH = script_loader.load("finish").sha
CANCEL = script_loader.load("cancel").sha


def call(*args: Any, sha: str = FINISH, prefix: str = "lc:{0}:") -> Call:
    return Call.of(("EVALSHA", sha, 1, prefix, 0.0, *args), asyncio.get_running_loop().create_future())


def merged(*calls: Call) -> list[Call]:
    return merge(calls)


def future_of(call: Call) -> asyncio.Future[Any]:
    assert isinstance(call.reply, asyncio.Future)
    return call.reply


def answer_to(call: Call) -> Any:
    """Return what a caller gets. Raises InvalidStateError while it has not been passed on."""
    reply = future_of(call)
    return reply.exception() or reply.result()


async def test_calls_of_one_script_become_one() -> None:
    sent = merged(call("a", 1), call("b", 2), call("c", 3))
    assert [s.command for s in sent] == [pack(("EVALSHA", FINISH, 1, "lc:{0}:", 0.0, "a", 1, "b", 2, "c", 3))]


async def test_a_call_that_is_alone_is_sent_as_it_is() -> None:
    alone = call("a", 1)
    assert merged(alone) == [alone]


async def test_other_commands_keep_their_places() -> None:
    ping = Call.of(("PING",), asyncio.get_running_loop().create_future())
    first, second, cancel = call("a"), call("b"), call("c", sha=CANCEL)
    sent = merged(ping, first, cancel, second)
    assert [s.command for s in sent] == [ping.command, merged(first, second)[0].command, cancel.command]


async def test_calls_of_two_shards_are_not_merged() -> None:
    calls = [call("a"), call("b", prefix="lc:{1}:")]
    assert merged(*calls) == calls


async def test_a_merged_call_is_bounded() -> None:
    assert len(merged(*(call(str(i)) for i in range(CALLS_LIMIT + 1)))) == 2
    assert len(merged(*(call("x" * BYTES_LIMIT) for _ in range(3)))) == 3


async def test_each_caller_gets_its_own_answer() -> None:
    calls = [call("a"), call("b")]
    merged(*calls)[0].reply.set_result([b"first", b"second"])
    assert [answer_to(c) for c in calls] == [[b"first"], [b"second"]]


@pytest.mark.parametrize("failure", [NoScriptError("No matching script"), ResponseError("user_script:1: broken")])
async def test_an_error_of_the_whole_call_is_the_answer_to_each(failure: ResponseError) -> None:
    calls = [call("a"), call("b")]
    merged(*calls)[0].reply.set_result(failure)
    assert [answer_to(c) for c in calls] == [failure, failure]


async def test_a_lost_connection_fails_each_caller() -> None:
    lost, calls = StoreUnavailable("Redis cannot be reached"), [call("a"), call("b")]
    merged(*calls)[0].reply.set_exception(lost)
    assert [answer_to(c) for c in calls] == [lost, lost]


async def test_a_caller_that_has_given_up_keeps_nothing_from_the_others() -> None:
    calls = [call("a"), call("b")]
    sent = merged(*calls)
    future_of(calls[0]).cancel()
    sent[0].reply.set_result([b"first", b"second"])
    assert answer_to(calls[1]) == [b"second"]


async def test_too_few_answers_are_an_error_of_each_caller() -> None:
    calls = [call("a"), call("b")]
    merged(*calls)[0].reply.set_result([b"first"])
    assert [type(answer_to(c)) for c in calls] == [ResponseError, ResponseError]


async def test_a_shift_is_sent_as_it_is() -> None:
    calls = [
        Call.of(("EVALSHA", FINISH, 1, "lc:{0}:", shift, "a"), asyncio.get_running_loop().create_future())
        for shift in (0.0, 0, 0)
    ]
    assert [s.command for s in merged(*calls)] == [
        calls[0].command,
        pack(("EVALSHA", FINISH, 1, "lc:{0}:", 0, "a", "a")),
    ]


def test_an_error_of_one_request_is_raised() -> None:
    wrong_type = ResponseError("WRONGTYPE Operation against a key holding the wrong kind of value")
    with pytest.raises(ResponseError, match="WRONGTYPE"):
        only_reply([wrong_type])
    with pytest.raises(StoreUnavailable):
        only_reply([ResponseError("ERR a refusal of another kind")])
