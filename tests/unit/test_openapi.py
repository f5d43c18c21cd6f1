"""The description of the HTTP API says what the routes and the validation of bodies say."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi.routing import APIRoute

from frontend.endpoints.completions.validation import REQUIRED, RULES
from frontend.endpoints.messages import validation as messages
from frontend.endpoints.responses import validation
from frontend.routes import bulk_cancel, calls, cluster, health, overview, requests, responses
from frontend.routes.openapi import document
from frontend.routes.schemas import SCHEMAS
from lifecycle.types import Endpoint, RequestRecord

ROUTERS = (calls, bulk_cancel, requests, responses, cluster, overview, health)
METHODS = {"get", "post", "put", "delete", "patch"}


def test_every_route_is_described_and_nothing_else() -> None:
    routes = {
        (route.path.replace(":path", ""), method.lower())
        for module in ROUTERS
        for route in module.router.routes
        if isinstance(route, APIRoute)
        for method in route.methods or ()
    }
    described = {(path, method) for path, item in document()["paths"].items() for method in item if method in METHODS}
    assert described == routes


@pytest.mark.parametrize(
    ("endpoint", "name"), [(Endpoint.CHAT_COMPLETIONS, "ChatCall"), (Endpoint.COMPLETIONS, "TextCall")]
)
def test_every_parameter_of_a_call_is_described(endpoint: Endpoint, name: str) -> None:
    assert SCHEMAS[name]["properties"].keys() == {*RULES[endpoint], "priority"}
    assert SCHEMAS[name]["required"] == list(REQUIRED[endpoint])


def test_every_parameter_of_a_response_is_described() -> None:
    assert SCHEMAS["ResponseCall"]["properties"].keys() == {*validation.RULES, "priority"}


def test_every_parameter_of_a_message_is_described() -> None:
    assert SCHEMAS["MessagesCall"]["properties"].keys() == {*messages.RULES, "priority"}
    assert SCHEMAS["TokenCountCall"]["properties"].keys() == {*messages.COUNT_RULES, "priority"}


def test_the_record_is_described() -> None:
    raw = {
        "id": "r",
        "model": "m",
        "endpoint": "completions",
        "request_type": "unary",
        "status": "queued",
        "on_disconnect": "cancel",
        "created_at": "1",
    }
    ended = RequestRecord.from_hash(raw)
    queued = ended._replace(queue_position=1)
    assert SCHEMAS["Request"]["properties"].keys() == queued.to_json().keys()
    assert set(SCHEMAS["Request"]["required"]) == ended.to_json().keys()


def references(value: Any) -> set[str]:
    if isinstance(value, dict):
        own = {value["$ref"].rpartition("/")[2]} if "$ref" in value else set()
        return own.union(*map(references, value.values()))
    return set().union(*map(references, value)) if isinstance(value, list) else set()


def test_every_reference_leads_somewhere_and_nothing_is_left_over() -> None:
    assert references(document()) == SCHEMAS.keys()
