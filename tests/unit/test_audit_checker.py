"""The checker of histories: each kind of violation is planted and found, and an honest history has none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.audit.asked import ask_for
from tests.chaos.audit.checker import check
from tests.chaos.audit.history import Call, History, How, Operation, Seen, Token, Window

_RUNNING = Seen("running", "", 1, None)
_COMPLETED = Seen("completed", "", 1, 1700.0)
_CANCELLED = Seen("cancelled", "cancelled", 1, 1700.0)
_LOST = Seen("failed", "state_lost", 1, 1701.0)
_ECHO = ask_for("m", "echo", 3)
_SIGNED = ask_for("m", "signed", 3)


def _call(operation: Operation, at: float, secs: float = 0.5, **fields: Any) -> Call:
    values: dict[str, Any] = {"rid": "r1", "replica": "http://one", "code": 200, "answered_at": at + 0.1}
    return Call(operation=operation, invoked_at=at, completed_at=at + secs, **values | fields)


def _tokens(*texts: str, attempt: int = 1, first: int = 1) -> tuple[Token, ...]:
    return tuple(Token(attempt, number, text) for number, text in enumerate(texts, first))


_WORDS = _tokens("w0", " w1", " w2")


def _admit(at: float = 0.0, secs: float = 3.0, **fields: Any) -> Call:
    values: dict[str, Any] = {"asked": _ECHO, "stream": True, "tokens": _WORDS, "done": True}
    return _call(Operation.ADMIT, at, secs, **values | fields)


def _resume(at: float, tokens: tuple[Token, ...] = _WORDS, **fields: Any) -> Call:
    values: dict[str, Any] = {"stream": True, "tokens": tokens, "done": True}
    return _call(Operation.RESUME, at, **values | fields)


def _refused(at: float = 0.0, code: int = 503, **fields: Any) -> Call:
    values: dict[str, Any] = {
        "code": code,
        "stream": True,
        "tokens": (),
        "done": False,
        "error": "unavailable",
        "retry_after": True,
    }
    return _admit(at, 0.5, **values | fields)


def _status(at: float, record: Seen | None, code: int = 200) -> Call:
    return _call(Operation.STATUS, at, record=record, code=code, retry_after=True)


def _cancel(at: float, record: Seen, code: int = 200) -> Call:
    return _call(Operation.CANCEL, at, record=record, code=code, mode="kill")


def _inflight(at: float, total: int) -> Call:
    return _call(Operation.INFLIGHT, at, rid="", total=total)


def _signed(*signs: str) -> tuple[Token, ...]:
    """Return tokens of which each is signed `number@attempt.run`."""
    return tuple(
        Token(int(sign.partition("@")[2].partition(".")[0]), number, sign + " ") for number, sign in enumerate(signs, 1)
    )


_CUT_SHORT: dict[str, Any] = {"tokens": _WORDS[:1], "error": "cancelled"}

HONEST: dict[str, Sequence[Call]] = {
    "a stream, its record and a replay": [_admit(), _status(1, _RUNNING), _status(5, _COMPLETED), _resume(6)],
    "a reader that leaves and comes back": [
        _admit(0, 1, tokens=_WORDS[:1], done=False, how=How.LEFT),
        _resume(2, _WORDS[1:], after=(1, 1)),
    ],
    "a cancel that is confirmed later": [
        _admit(**_CUT_SHORT),
        _cancel(1, _RUNNING, 202),
        _cancel(4, _CANCELLED),
        _resume(5, _WORDS[:1], error="cancelled"),
    ],
    "a reader that is told of a cancel before the worker has stopped": [_admit(**_CUT_SHORT), _status(5, _RUNNING)],
    "an attempt that goes on behind another": [
        _admit(asked=_SIGNED, tokens=_signed("0@1.a", "1@2.b", "2@2.b"), secs=4.0),
        _status(5, Seen("completed", "", 2, 1700.0)),
    ],
    "a call that is refused and repeated with its id": [_refused(), _admit(2)],
    "a refused call whose request was admitted and was over at once": [
        _refused(),
        _status(2, _COMPLETED._replace(created_at=1699.9)),
        _resume(3),
    ],
    "a refused call whose request goes on for a reader": [_refused(), _resume(1), _status(20, _COMPLETED)],
    "a second call with the id of the first": [_admit(), _refused(1, 409, error="id_in_use")],
    "a reader whose frontend lost Redis": [_admit(error="unavailable", tokens=_WORDS[:1]), _status(5, _COMPLETED)],
    "an unknown request": [_status(0, None, 404)],
    "readings of the count": [_inflight(0, 0), _admit(1), _status(2, _RUNNING), _inflight(2.6, 1), _inflight(6, 0)],
    "readings while a request begins": [_inflight(0.9, 1), _inflight(0.8, 0), _admit(1)],
}

VIOLATIONS: dict[str, tuple[Sequence[Call], str]] = {
    "two ends": ([_admit(), _status(5, Seen("failed", "worker_lost", 1, 1700.0))], "two ends"),
    "one end at two times": (
        [_status(1, _COMPLETED), _status(2, _COMPLETED._replace(finished_at=1800.0))],
        "two ends",
    ),
    "a stream that failed of a request that completed": (
        [_admit(error="worker_lost", tokens=_WORDS[:1]), _status(5, _COMPLETED)],
        "two ends",
    ),
    "a status that goes back": ([_status(0, _COMPLETED), _status(1, _RUNNING)], "after its end"),
    "an attempt that goes back": (
        [_status(0, _RUNNING._replace(attempt=2)), _status(1, _RUNNING)],
        "after attempt 2",
    ),
    "a confirmed cancel of what runs": ([_admit(), _cancel(1, _RUNNING)], "has not ended"),
    "a confirmed cancel that is undone": (
        [_admit(**_CUT_SHORT), _cancel(1, _CANCELLED), _status(5, _COMPLETED)],
        "two ends",
    ),
    "an event after a confirmed cancel": (
        [
            _admit(secs=9, tokens=_WORDS[:2], error="cancelled"),
            _cancel(1, _CANCELLED),
            _resume(3, _WORDS[:1], error="cancelled"),
        ],
        "but a reader got (1, 2)",
    ),
    "success after a confirmed cancel": ([_cancel(1, _CANCELLED), _resume(3)], "told success"),
    "a hole": ([_admit(tokens=(_WORDS[0], _WORDS[2]))], "right after 1-1"),
    "a repetition": ([_admit(tokens=(*_WORDS, _WORDS[2]))], "right after 1-3"),
    "an older attempt after a newer": (
        [_admit(tokens=(Token(2, 1, "w0"), Token(1, 2, " w1"), Token(1, 3, " w2")))],
        "right after 2-1",
    ),
    "a resume that skips": ([_admit(), _resume(5, _WORDS[2:], after=(1, 1))], "right after 1-1"),
    "a part as a success": ([_admit(tokens=_WORDS[:2])], "is not 'w0 w1 w2'"),
    "a wrong unary text": ([_admit(stream=False, tokens=(), done=False, text="w0")], "(unary"),
    "a stream without an end": ([_admit(done=False)], "without [DONE]"),
    "two readers with two texts": ([_admit(), _resume(5, _tokens("w0", " wX", " w2"))], "different tokens"),
    "a splice within one attempt": (
        [_admit(asked=_SIGNED, tokens=_signed("0@1.a", "1@1.b", "2@1.b"))],
        "two runs of the engine are in one answer",
    ),
    "a splice by a resume": (
        [
            _admit(0, 1, asked=_SIGNED, tokens=_signed("0@1.a"), done=False, how=How.LEFT),
            _resume(2, _signed("0@1.a", "1@1.b", "2@1.b")[1:], after=(1, 1)),
        ],
        "two runs of the engine are in one answer",
    ),
    "an answer that begins again": (
        [_admit(asked=_SIGNED, tokens=_signed("0@1.a", "0@2.b", "1@2.b"))],
        "token 1 of the engine is missing",
    ),
    "a token of another attempt": (
        [_admit(asked=_SIGNED, tokens=tuple(t._replace(attempt=2) for t in _signed("0@1.a", "1@1.a", "2@1.a")))],
        "was made by attempt 1",
    ),
    "an accepted request that is unknown": ([_admit(), _status(5, None, 404)], "404, and it was accepted"),
    "a request that is accepted twice": ([_admit(), _admit(1)], "accepted twice"),
    "a conflict with nobody": ([_refused(0, 409)], "nobody else has used the id"),
    "a refused call that runs": ([_refused(), _status(30, _RUNNING)], "and it runs"),
    "a refused call that completes": ([_refused(), _status(2, _COMPLETED)], "and it has completed"),
    "a refused call that runs on": (
        [_refused(), _status(20, _COMPLETED._replace(created_at=1690.0))],
        "and it has completed",
    ),
    "a refusal that does not say when": ([_refused(retry_after=False)], "without Retry-After"),
    "an error nobody expects": ([_refused(0, 502)], "answered 502"),
    "a call that is not answered": ([_admit(how=How.SILENT, done=False, secs=60.0)], "has waited for 60 s"),
    "a connection that breaks": ([_admit(how=How.BROKEN, done=False)], "the connection broke"),
    "a count that is too high": ([_admit(), _status(5, _COMPLETED), _inflight(6, 1)], "at most 0"),
    "a count that is too low": (
        [_admit(secs=9), _status(1, _RUNNING), _inflight(2, 0), _status(3, _RUNNING)],
        "at least 1",
    ),
    "a count before anybody has asked": ([_inflight(0, 1), _admit(1)], "at most 0"),
    "a reading that fails": ([replace(_inflight(0, 0), code=500)], "answered 500"),
}


def _checked(calls: Sequence[Call], *windows: Window, shared: bool = False) -> list[str]:
    return check(History(settle_secs=5.0, shared=shared, calls=list(calls), windows=list(windows)))


@pytest.mark.parametrize("calls", HONEST.values(), ids=HONEST)
def test_an_honest_history_has_no_violation(calls: Sequence[Call]) -> None:
    assert _checked(calls) == []


@pytest.mark.parametrize(("calls", "words"), VIOLATIONS.values(), ids=VIOLATIONS)
def test_a_planted_violation_is_found(calls: Sequence[Call], words: str) -> None:
    found = _checked(calls)
    assert any(words in line for line in found), found


@pytest.mark.parametrize(
    "name", ["a splice within one attempt", "a splice by a resume", "a hole", "a part as a success"]
)
def test_no_loss_of_data_excuses_a_wrong_answer(name: str) -> None:
    calls, words = VIOLATIONS[name]
    assert any(words in line for line in _checked(calls, Window(0, 100, "an old snapshot", loses_data=True)))


@pytest.mark.parametrize(
    "calls",
    [
        [_admit(), _status(5, None, 404)],
        [_admit(secs=5, answered_at=4.0), _status(6, None, 404)],
        [_admit(), _status(5, _LOST)],
        [_status(0, _COMPLETED), _status(1, _RUNNING), _status(2, _LOST)],
        [_status(0, _RUNNING._replace(attempt=2)), _status(1, _RUNNING)],
        [
            _admit(0, 1, tokens=_WORDS[:1], done=False, how=How.LEFT),
            _cancel(5, _CANCELLED),
            _resume(6, (), error="cancelled"),
        ],
        [
            _admit(0, 1, asked=_SIGNED, tokens=_signed("0@1.a"), done=False, how=How.LEFT),
            _resume(2, _signed("0@1.a", "1@1.b")[1:], after=(1, 1), error="state_lost"),
        ],
        [
            _admit(0, 1, asked=_SIGNED, tokens=_signed("0@1.a"), done=False, how=How.LEFT),
            _resume(2, _signed("0@1.a", "1@1.b")[1:], after=(1, 1), error="cancelled"),
        ],
        [_admit(), _admit(), _status(2, Seen("failed", "unavailable", 1, 1702.0))],
    ],
    ids=[
        "unknown",
        "unknown since before the answer came",
        "lost",
        "as it was for a moment",
        "an older attempt",
        "tokens lost before the cancel",
        "a splice that its reader is told of",
        "a splice that is killed",
        "an id that was admitted by two servers",
    ],
)
def test_what_a_loss_of_data_excuses(calls: Sequence[Call]) -> None:
    assert _checked(calls) != []
    assert _checked(calls, Window(0, 2, "an old snapshot", loses_data=True)) == []


def test_an_undone_cancel_is_found_after_a_loss_of_data() -> None:
    calls = [_admit(**_CUT_SHORT), _cancel(1, _CANCELLED), _status(5, _COMPLETED)]
    assert any("two ends" in line for line in _checked(calls, Window(0, 2, "an old snapshot", loses_data=True)))


def test_an_end_is_undone_only_where_data_was_lost_and_leases_have_expired() -> None:
    completed, lost = Seen("completed", "", 1, 1701.0), Seen("failed", "worker_lost", 1, 1702.0)
    for loses_data, expires_leases, excused in ((True, True, True), (True, False, False), (False, True, False)):
        window = Window(0, 2, "a frozen primary", loses_data, expires_leases=expires_leases)
        for ends in ((completed, lost), (lost, completed)):
            calls = [_status(1, ends[0]), _status(5, ends[1])]
            assert (_checked(calls, window) == []) == excused


def test_an_event_after_a_confirmed_cancel_is_not_excused_by_an_earlier_loss_of_data() -> None:
    calls, words = VIOLATIONS["an event after a confirmed cancel"]
    assert any(words in line for line in _checked(calls, Window(0, 1, "an old snapshot", loses_data=True)))
    assert not _checked(calls, Window(2, 3, "an old snapshot", loses_data=True))


def test_a_disturbance_excuses_a_count_that_is_too_low_but_not_one_that_is_too_high() -> None:
    killed = Window(0, 2, "a frontend killed")
    low, _ = VIOLATIONS["a count that is too low"]
    high, words = VIOLATIONS["a count that is too high"]
    assert _checked(low, killed) == []
    assert any(words in line for line in _checked(high, killed))
    assert _checked(high, shared=True) == []


def test_only_the_connections_of_a_broken_replica_may_break() -> None:
    calls, words = VIOLATIONS["a connection that breaks"]
    assert _checked(calls, Window(0, 2, "killed", replicas=("http://one",))) == []
    assert any(words in line for line in _checked(calls, Window(0, 2, "killed", replicas=("http://other",))))


@pytest.mark.parametrize(
    "name", ["a splice by a resume", "a count that is too low", "a confirmed cancel that is undone"]
)
def test_a_history_is_the_same_after_it_was_written_and_read(tmp_path: Path, name: str) -> None:
    window = Window(0, 1, "killed", replicas=None)
    history = History(settle_secs=5.0, calls=[*VIOLATIONS[name][0], replace(_admit(90), rid="r2")], windows=[window])
    history.write(tmp_path / "history.jsonl")
    again = History.read(tmp_path / "history.jsonl")
    assert again == history
    assert check(again) == check(history)
