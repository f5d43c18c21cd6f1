"""The HTTP API under generated calls, right and wrong: it answers as its description says, and never with a surprise.

Seeded: a run of the suite is always the same. A long one, other calls each time:

    FUZZ_EXAMPLES=2000 python -m pytest -n 0 --timeout 3600 tests/integration/test_fuzz.py
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from typing import Any

import hypothesis
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck
from schemathesis import GenerationMode
from schemathesis.checks import CHECKS, load_all_checks
from schemathesis.core.result import Ok

from frontend.routes.json_schema import one_of
from frontend.routes.openapi import document
from lifecycle.settings import Settings
from tests.cluster import running
from tests.shared_cluster import shared_cluster

HONEST = {503, 504}  # not now; a limit that the caller has set: no trouble of the server's own
EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "0"))
KNOWN = "known"  # a request that has ended
KNOWN_RESPONSE = "resp_known"


def described() -> dict[str, Any]:
    """Return the server's own description with existing ids and models, because others are answered with 404."""
    description = document()
    schemas = description["components"]["schemas"] = dict(description["components"]["schemas"])
    for name in ("ChatCall", "TextCall", "ResponseCall", "MessagesCall", "TokenCountCall"):
        call = schemas[name] = dict(schemas[name])
        call["properties"] = call["properties"] | {"model": one_of("echo", "echo", "nobody")}
    for path, item in description["paths"].items():
        if "{rid}" in path:
            known = KNOWN_RESPONSE if path.startswith("/v1/responses") else KNOWN
            item["parameters"] = [item["parameters"][0] | {"schema": one_of(known, "nosuch", "cancel")}]
    return description


SCHEMA = schemathesis.openapi.from_dict(described())
ENDLESS = "GET /v1/overview"


def operations() -> Iterator[Any]:
    """Every operation of the description, all of which must be valid."""
    for found in SCHEMA.get_all_operations():
        assert isinstance(found, Ok), found.err()
        yield found.ok()


OPERATIONS = {operation.label: operation for operation in operations() if operation.label != ENDLESS}
CASES = [
    pytest.param(label, mode, id=f"{label} {mode.value}")
    for label, operation in OPERATIONS.items()
    for mode in GenerationMode
    if mode is GenerationMode.POSITIVE or operation.body or operation.query or operation.headers  # what can be wrong
]
load_all_checks()
CONFORMS: list[Any] = CHECKS.get_by_names(
    [
        "status_code_conformance",
        "content_type_conformance",
        "response_headers_conformance",
        "response_schema_conformance",
    ]
)


@pytest.fixture(scope="module")
def url(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    settings = Settings(
        redis_url=redis_url,
        namespace=f"fuzz-{secrets.token_hex(4)}",
        heartbeat_secs=0.5,
        lease_secs=6.0,
        sweep_secs=0.25,
        echo_tokens_per_sec=0.0,
    )
    with shared_cluster(running(settings, tmp_path_factory.mktemp("fuzz"))) as cluster:
        url = cluster.frontends[0].url
        body = {"model": "echo", "prompt": "some words"}
        requests.post(url + "/v1/completions", json=body, headers={"X-Request-Id": KNOWN}, timeout=10)
        response: dict[str, Any] = {"model": "echo", "input": "some words", "background": True}
        requests.post(url + "/v1/responses", json=response, headers={"X-Request-Id": KNOWN_RESPONSE}, timeout=10)
        yield url


@pytest.mark.parametrize(("label", "mode"), CASES)
def test_it_answers_as_described(url: str, label: str, mode: GenerationMode) -> None:
    operation = OPERATIONS[label]
    examples = EXAMPLES or (40 if operation.body else 8)

    @hypothesis.settings(
        max_examples=examples,
        deadline=None,
        derandomize=not EXAMPLES,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @hypothesis.given(case=operation.as_strategy(generation_mode=mode))
    def answers(case: schemathesis.Case[Any]) -> None:
        with requests.Session() as session:
            session.trust_env = False
            answer = case.call(base_url=url, session=session, timeout=10)
        assert answer.status_code < 500 or answer.status_code in HONEST, (answer.status_code, answer.text)
        case.validate_response(answer, checks=CONFORMS)

    answers()
