"""The outbox of webhooks: events that report the end of a request, until they are delivered.

The script that ends a request puts its event into the outbox of its shard. Frontends claim events that are due, deliver
them and settle them. A claim that is not settled lapses, and its event is due again, so it is delivered at least once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Literal, NamedTuple, cast

import orjson

from lifecycle.store.runner import ScriptRunner, as_text
from lifecycle.types import Status

DeliveryOutcome = Literal["delivered", "failed", "given_up"]
Settlement = Literal["removed", "kept", "lapsed"]
KEEP_SECS = 86_400.0  # after the end of a request its event is given up
_DEFER_SECS = 1.0  # see claim_webhooks.lua


class WebhookEvent(NamedTuple):
    """Report the end of a request to `url`. Times are in Unix seconds by Redis's clock."""

    id: str
    url: str
    rid: str
    endpoint: str
    model: str
    status: Status
    error_type: str
    finish_reason: str
    created_at: float  # when the request was admitted
    finished_at: float
    failures: int  # deliveries that failed


def event_id(rid: str, nonce: str) -> str:
    """Return the id of the event about a request. The nonce makes it another one when the request id is used again."""
    return "evt_" + hashlib.sha256(f"{rid}|{nonce}".encode()).hexdigest()[:32]


class ClaimedWebhooks(NamedTuple):
    """Events that were claimed. `more`: further ones are due. `lost`: events that had expired before they were."""

    events: list[WebhookEvent]
    more: bool
    lost: int


class WebhookOutbox(ScriptRunner):
    """The part of the Store that has the outbox. Every method may raise StoreUnavailable."""

    async def claim_webhooks(
        self,
        shard: int,
        token: str,
        *,
        limit: int,
        claim_secs: float,
        under_way: Mapping[str, int],
        origin_limit: int,
    ) -> ClaimedWebhooks:
        """Claim up to `limit` events of a shard that are due. The oldest come first.

        They are due again after `claim_secs` if they are not settled with the same `token`, which must be a new one for
        each claim. `under_way` counts the deliveries to each origin (`scheme://host:port`) that the caller has under
        way: an origin gets no more than `origin_limit` of them. The cost does not grow with the outbox. Repeating it
        claims other events.
        """
        more, lost, events = await self._call(
            "claim_webhooks",
            self._prefixes[shard],
            token,
            limit,
            claim_secs,
            orjson.dumps(under_way),
            origin_limit,
            _DEFER_SECS,
        )
        return ClaimedWebhooks([_event(flat) for flat in events], bool(more), int(lost))

    async def settle_webhook(
        self,
        shard: int,
        event: WebhookEvent,
        token: str,
        outcome: DeliveryOutcome,
        *,
        retry_after_secs: float = 0.0,
        retry_for_secs: float = 0.0,
    ) -> Settlement:
        """Record how the delivery of an event went. After `failed` it is due again after `retry_after_secs`, unless
        that is later than KEEP_SECS after the end of the request: it is `removed` then.

        Returns `lapsed` when the claim was not the caller's any more; a repetition returns that too. Only `delivered`
        has an effect then.
        """
        reply = await self.run(
            "settle_webhook",
            self._prefixes[shard],
            event.id,
            token,
            outcome,
            retry_after_secs,
            f"{event.finished_at + KEEP_SECS:.6f}",
            retry_for_secs=retry_for_secs,
        )
        return cast(Settlement, as_text(reply))


def _event(flat: list[bytes]) -> WebhookEvent:
    fields = {as_text(name): as_text(value) for name, value in zip(flat[::2], flat[1::2], strict=True)}
    return WebhookEvent(
        id=fields["id"],
        url=fields["url"],
        rid=fields["rid"],
        endpoint=fields["endpoint"],
        model=fields["model"],
        status=Status(fields["status"]),
        error_type=fields["error_type"],
        finish_reason=fields["finish_reason"],
        created_at=float(fields["created_at"]),
        finished_at=float(fields["finished_at"]),
        failures=int(fields.get("failures", 0)),
    )
