"""The error body and its headers, as the OpenAI SDKs read them."""

import httpx2
import openai
import orjson
import pytest

from lifecycle.errors import ERROR_RESPONSES
from lifecycle.fastapi.errors import ApiError
from lifecycle.types import ErrorType


def test_the_body_is_openai_s() -> None:
    error = ApiError(ErrorType.NOT_FOUND, "no such model", code="model_not_found", param="model")
    assert error.status == 404
    assert error.body() == (
        b'{"error":{"message":"no such model","type":"not_found_error","code":"model_not_found","param":"model"}}'
    )


def test_a_request_that_failed_after_admission_is_named() -> None:
    error = ApiError(ErrorType.RESPONSE_TIMEOUT, "silent for 5 s", request_id="r-1")
    assert error.status == 504
    assert orjson.loads(error.body())["error"] == {
        "message": "silent for 5 s",
        "type": "timeout_error",
        "code": None,
        "param": None,
        "error_type": "response_timeout",
        "request_id": "r-1",
    }


@pytest.mark.parametrize("error_type", list(ERROR_RESPONSES))
def test_every_error_type_has_a_body_and_headers(error_type: ErrorType) -> None:
    error = ApiError(error_type, "why")
    assert orjson.loads(error.body())["error"]["type"] == ERROR_RESPONSES[error_type].type
    assert error.headers()["content-type"] == "application/json"


@pytest.mark.parametrize(
    ("error_type", "status", "repeat", "later"),
    [
        (ErrorType.VALIDATION, None, False, False),
        (ErrorType.NOT_FOUND, None, False, False),
        (ErrorType.VALIDATION, 405, False, False),
        (ErrorType.VALIDATION, 409, False, False),
        (ErrorType.VALIDATION, 413, False, False),
        (ErrorType.CANCELLED, None, False, False),
        (ErrorType.OVERLOAD, None, True, True),
        (ErrorType.OVERLOAD, 503, True, True),
        (ErrorType.UNAVAILABLE, None, True, True),
        (ErrorType.STATE_LOST, None, True, True),
        (ErrorType.INTERNAL, None, True, False),
        (ErrorType.DEADLINE, None, True, False),
    ],
)
def test_who_should_repeat_and_when(error_type: ErrorType, status: int | None, repeat: bool, later: bool) -> None:
    headers = ApiError(error_type, "why", status=status).headers()
    assert headers.get("x-should-retry") == (None if repeat else "false")
    assert ("retry-after" in headers) is later
    assert 1 <= int(headers.get("retry-after", 1)) <= 3


def test_the_caller_may_know_better() -> None:
    headers = ApiError(ErrorType.UNAVAILABLE, "why", retry=False, retry_after_secs=7).headers()
    assert headers["x-should-retry"] == "false"
    assert headers["retry-after"] == "7"


@pytest.mark.parametrize(
    ("error", "calls"),
    [
        (ApiError(ErrorType.VALIDATION, "the id is in use", status=409), 1),
        (ApiError(ErrorType.VALIDATION, "no", code="unsupported_parameter"), 1),
        (ApiError(ErrorType.UNAVAILABLE, "later", retry_after_secs=0), 2),
    ],
)
def test_the_sdk_repeats_only_what_is_worth_it(error: ApiError, calls: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    seen = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        seen.append(request)
        return httpx2.Response(error.status, headers=error.headers(), content=error.body())

    client = openai.OpenAI(
        api_key="-",
        base_url="http://server/v1",
        max_retries=1,
        http_client=httpx2.Client(transport=httpx2.MockTransport(answer)),
    )
    with pytest.raises(openai.APIStatusError, match=error.message) as raised:
        client.models.list()
    assert raised.value.type == error.type
    assert len(seen) == calls


def test_a_message_that_is_not_utf8_is_still_sent() -> None:
    assert orjson.loads(ApiError(ErrorType.INTERNAL, "bad \ud800").body())["error"]["message"] == "bad \ufffd"


@pytest.mark.parametrize(("status", "is_repeated"), [(400, False), (404, False), (408, True), (429, True), (503, True)])
def test_clients_repeat_what_they_repeat_with_the_upstream_itself(status: int, is_repeated: bool) -> None:
    headers = ApiError(ErrorType.INTERNAL, "why", status=status).headers()
    assert headers.get("x-should-retry") == (None if is_repeated else "false")
