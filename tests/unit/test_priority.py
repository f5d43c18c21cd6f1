"""The field `priority` of every endpoint's body: checked, clamped to the key's range, and kept from the engine."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from frontend.endpoints import ENDPOINTS
from frontend.endpoints.endpoint import ApiEndpoint
from frontend.endpoints.priority import with_priority
from lifecycle.clients import arguments
from lifecycle.errors import InvalidValue
from lifecycle.fastapi.caller import ANYBODY, Caller, PriorityRange
from lifecycle.fastapi.errors import ApiError

BODY = {
    "model": "m",
    "messages": [{"role": "user", "content": "hi"}],
    "prompt": "hi",
    "input": "hi",
    "max_tokens": 1,
}


def parsed(endpoint: ApiEndpoint, **fields: Any) -> Any:
    body = {name: value for name, value in BODY.items() if name != "prompt" or endpoint.name != "responses"}
    return with_priority(endpoint.parse(orjson.dumps(body | fields)))


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda endpoint: endpoint.paths[0])
def test_it_is_taken_out_of_the_body(endpoint: ApiEndpoint) -> None:
    for given, wanted in ((-3, -3), (0, 0), (None, 0), (2**40, 2**40)):
        call = parsed(endpoint, priority=given)
        assert (call.priority, call.body.get("priority", "none")) == (wanted, "none")
    assert parsed(endpoint).priority == 0


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda endpoint: endpoint.paths[0])
@pytest.mark.parametrize("wrong", [True, 1.5, "1", [], {}, 2**70])
def test_what_is_no_integer_is_refused(endpoint: ApiEndpoint, wrong: Any) -> None:
    body = orjson.dumps(BODY).replace(b"}", b"", 0)
    raw = body[:-1] + b',"priority":' + (str(wrong).encode() if type(wrong) is int else orjson.dumps(wrong)) + b"}"
    raw = raw.replace(b'"prompt":"hi",', b"") if endpoint.name == "responses" else raw
    with pytest.raises(ApiError) as refused:
        with_priority(endpoint.parse(raw))
    assert (refused.value.status, refused.value.param) == (400, "priority")


def test_a_caller_has_the_range_of_its_key() -> None:
    assert [Caller("a").priority.clamp(wanted) for wanted in (-1, 0, 1)] == [0, 0, 0]
    assert [Caller("a", priority=PriorityRange(-2, 5)).priority.clamp(wanted) for wanted in (-9, 3, 9)] == [-2, 3, 5]
    assert [ANYBODY.priority.clamp(wanted) for wanted in (-9, 9, 2**60)] == [-9, 9, 1_000_000_000]


def test_the_library_checks_it_too() -> None:
    assert [arguments.priority(given) for given in (None, -3, 2**60)] == [0, -3, 1_000_000_000]
    for wrong in (True, 1.5, "1"):
        with pytest.raises(InvalidValue) as refused:
            arguments.priority(wrong)
        assert refused.value.param == "priority"
