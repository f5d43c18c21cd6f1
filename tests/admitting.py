"""Admit a request to a store without a frontend."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lifecycle.formats.token_estimate import TokenEstimate
from lifecycle.store.new_request import AdmissionRequest, NewRequest, Parent, QueuePlace, ShareLimits
from lifecycle.store.results import Admission
from lifecycle.store.transitions import Store
from lifecycle.types import Event, Labels, Limits, OnDisconnect, Storage

CHAT = Labels("m", "chat_completions", "stream")


def new_request(
    rid: str,
    nonce: str,
    labels: Labels,
    frontend: str,
    body: bytes,
    on_disconnect: str,
    *,
    grace_secs: float = 0,
    queue_timeout_secs: float = 0,
    first_token_timeout_secs: float = 0,
    deadline_secs: float = 0,
    owner: str = "",
    admit_by: float | None = None,
    needs: tuple[str, ...] = (),
    headers: bytes = b"",
    storage: str = "",
    openings: Sequence[Event] = (),
    webhook_url: str = "",
    parent: Parent | None = None,
    own_labels: bytes = b"",
    priority: int = 0,
    weight: float = 1,
    prompt_tokens: int = 0,
    max_tokens: int | None = None,
    share_limits: ShareLimits | None = None,
) -> NewRequest:
    """Return a request as a frontend gives it to the store, by default without limits."""
    asked = AdmissionRequest(
        rid,
        labels,
        body,
        OnDisconnect(on_disconnect),
        grace_secs,
        Limits(queue_timeout_secs, first_token_timeout_secs, deadline_secs),
        owner=owner,
        needs=needs,
        headers=headers,
        storage=Storage(storage),
        openings=tuple(openings),
        own_labels=own_labels,
        place=QueuePlace(priority, weight, TokenEstimate(prompt_tokens, max_tokens)),
    )
    return NewRequest(
        asked,
        nonce,
        frontend,
        parent=parent,
        admit_by=admit_by,
        webhook_url=webhook_url,
        share_limits=share_limits,
    )


async def admit(
    store: Store,
    rid: str,
    *,
    nonce: str = "n",
    labels: Labels = CHAT,
    frontend: str = "f0",
    on_disconnect: str = "cancel",
    body: bytes = b"{}",
    **more: Any,
) -> Admission:
    """Admit a request with, by default, an empty body and without limits. The frontend need not run."""
    new = new_request(rid, nonce, labels, frontend, body, on_disconnect, **more)
    return await store.admit(new, retry_for_secs=0)
