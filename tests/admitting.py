"""Admit a request to a store without a frontend."""

from __future__ import annotations

from collections.abc import Sequence

from lifecycle.store.new_request import NewRequest, Parent, ShareLimits
from lifecycle.store.results import Admission
from lifecycle.store.transitions import Store
from lifecycle.types import Event, Labels

CHAT = Labels("m", "chat_completions", "stream")


async def admit(
    store: Store,
    rid: str,
    *,
    nonce: str = "n",
    labels: Labels = CHAT,
    frontend: str = "f0",
    on_disconnect: str = "cancel",
    grace_secs: float = 0,
    queue_timeout_secs: float = 0,
    first_token_timeout_secs: float = 0,
    deadline_secs: float = 0,
    owner: str = "",
    admit_by: float | None = None,
    needs: tuple[str, ...] = (),
    headers: bytes = b"",
    body: bytes = b"{}",
    storage: str = "",
    openings: Sequence[Event] = (),
    webhook_url: str = "",
    parent: Parent | None = None,
    priority: int = 0,
    weight: float = 1,
    prompt_tokens: int = 0,
    max_tokens: int | None = None,
    share_limits: ShareLimits | None = None,
) -> Admission:
    """Admit a request with, by default, an empty body and without limits. The frontend need not run."""
    new = NewRequest(
        rid,
        nonce,
        labels,
        frontend,
        body,
        on_disconnect,
        grace_secs=grace_secs,
        queue_timeout_secs=queue_timeout_secs,
        first_token_timeout_secs=first_token_timeout_secs,
        deadline_secs=deadline_secs,
        owner=owner,
        admit_by=admit_by,
        needs=needs,
        headers=headers,
        storage=storage,
        openings=openings,
        webhook_url=webhook_url,
        parent=parent,
        priority=priority,
        weight=weight,
        prompt_tokens=prompt_tokens,
        max_tokens=max_tokens,
        share_limits=share_limits,
    )
    return await store.admit(new, retry_for_secs=0)
