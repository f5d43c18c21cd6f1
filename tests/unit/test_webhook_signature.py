"""The signature of webhooks, against the reference library and OpenAI's."""

from __future__ import annotations

import base64
import time

import pytest
from openai import InvalidWebhookSignatureError, OpenAI
from standardwebhooks import Webhook, WebhookVerificationError

from lifecycle.store.webhooks import WebhookEvent
from lifecycle.types import Status
from lifecycle.webhooks.event_body import event_body, event_type
from lifecycle.webhooks.signature import Signer

SECRET = "whsec_" + base64.b64encode(b"0123456789abcdef01234567").decode()
OTHER = "whsec_" + base64.b64encode(b"fedcba9876543210fedcba98").decode()
EVENT = WebhookEvent(
    "evt_1", "https://r.example/", "resp_1", "responses", "m", Status.COMPLETED, "", "stop", 1.5, 2.75, 0
)


def test_the_reference_library_accepts_it() -> None:
    body = event_body(EVENT)
    headers = Signer.parse(SECRET).headers(EVENT.id, int(time.time()), body)
    assert Webhook(SECRET).verify(body, headers) == {
        "id": "evt_1",
        "object": "event",
        "created_at": 2,
        "type": "response.completed",
        "data": {"id": "resp_1"},
    }
    for wrong in (body + b" ", body.replace(b"resp_1", b"resp_2")):
        with pytest.raises(WebhookVerificationError):
            Webhook(SECRET).verify(wrong, headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(OTHER).verify(body, headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRET).verify(body, headers | {"webhook-id": "evt_2"})


@pytest.mark.parametrize(
    ("status", "finish_reason", "kind"),
    [
        (Status.COMPLETED, "stop", "response.completed"),
        (Status.COMPLETED, "length", "response.incomplete"),
        (Status.COMPLETED, "content_filter", "response.incomplete"),
        (Status.FAILED, "", "response.failed"),
        (Status.CANCELLED, "", "response.cancelled"),
    ],
)
def test_openai_unwraps_the_events_of_responses(status: Status, finish_reason: str, kind: str) -> None:
    body = event_body(EVENT._replace(status=status, finish_reason=finish_reason))
    headers = Signer.parse(SECRET).headers(EVENT.id, int(time.time()), body)
    with OpenAI(api_key="none", webhook_secret=SECRET) as client:
        event = client.webhooks.unwrap(body, headers)
        assert (event.type, event.id, event.created_at) == (kind, "evt_1", 2)
        assert getattr(event.data, "id", None) == "resp_1"
        with pytest.raises(InvalidWebhookSignatureError):
            client.webhooks.unwrap(body, headers, secret=OTHER)


@pytest.mark.parametrize("status", [Status.COMPLETED, Status.FAILED, Status.CANCELLED])
def test_other_endpoints_have_types_of_their_own(status: Status) -> None:
    event = EVENT._replace(endpoint="chat_completions", status=status, finish_reason="length")
    assert event_type(event) == f"request.{status}"


def test_while_secrets_change_each_signs() -> None:
    body = event_body(EVENT)
    headers = Signer.parse(f"{SECRET}  {OTHER}").headers(EVENT.id, int(time.time()), body)
    assert len(headers["webhook-signature"].split(" ")) == 2
    for secret in (SECRET, OTHER):
        Webhook(secret).verify(body, headers)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "secret-value",
        "whsec_",
        "whsec_c2hvcnQ=",
        "whsec_***",
        SECRET + " plain-value",
        " ".join([SECRET] * 11),
    ],
)
def test_a_secret_that_is_no_secret_is_refused_and_not_shown(text: str) -> None:
    with pytest.raises(ValueError, match="secret") as failure:
        Signer.parse(text)
    assert "-value" not in str(failure.value)
    assert "c2hvcnQ" not in str(failure.value)


def test_its_representation_has_no_secret() -> None:
    assert repr(Signer.parse(SECRET)) == "Signer(1 secrets)"
