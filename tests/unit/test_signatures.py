"""The bench's engines sign their tokens, so that a splice of two runs in one stream shows."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from tests.chaos.engines import numbers
from tests.chaos.readings import Reading, faults_of
from tests.chaos.signatures import SignedToken, signed_tokens, signer, text_of
from tests.sse import Event, Stream


def _token(entry_id: str, text: str) -> Event:
    return Event({"choices": [{"delta": {"content": text}}]}, entry_id)


def _reading(*tokens: tuple[str, str]) -> Reading:
    events = [*(_token(entry_id, text) for entry_id, text in tokens), Event("[DONE]")]
    return Reading("r1", Stream(cast(Any, SimpleNamespace(status_code=200)), events, ended=True))


def _run(attempt: int) -> Any:
    return signer(cast(Any, SimpleNamespace(attempt=attempt)))


def test_a_stream_of_one_run_or_of_one_run_for_each_attempt_is_right() -> None:
    first, second = _run(1), _run(2)
    assert faults_of(_reading(("1-1", first(0)), ("1-2", first(1)))) == []
    assert faults_of(_reading(("1-1", first(0)), ("2-2", second(1)))) == []
    assert faults_of(_reading(("1-1", "not "), ("1-2", "signed"))) == []


def test_a_splice_of_two_runs_under_one_attempt_is_found() -> None:
    one, other = _run(1), _run(1)
    [fault] = faults_of(_reading(("1-1", one(0)), ("1-2", other(1))))
    assert "two runs of the engine are in one answer, as attempts 1 and 1" in fault


def test_a_token_of_another_attempt_than_its_id_names_is_found() -> None:
    [fault] = faults_of(_reading(("2-1", _run(1)(0))))
    assert "attempt 2 has a token of" in fault


@pytest.mark.parametrize("count", [0, 3])
def test_the_text_without_signatures_is_the_engines(count: int) -> None:
    sign = _run(4)
    tokens = [sign(number) for number in range(count)]
    read = [_token(f"4-{number + 1}", token) for number, token in enumerate(tokens)]
    assert text_of(read) == numbers(count)
    found = signed_tokens("".join(tokens))
    assert found is not None
    assert [(token.number, token.attempt) for token in found] == [(number, 4) for number in range(count)]
    assert len({token.run for token in found}) <= 1


def test_a_text_that_is_not_signed_throughout_is_told_apart() -> None:
    assert signed_tokens("0@1.a 1 ") is None
    assert signed_tokens("0@1.a ") == [SignedToken(0, 1, "a")]
