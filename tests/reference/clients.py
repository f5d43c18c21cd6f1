"""Describe which client libraries get the engine's own answers."""

from __future__ import annotations

from collections.abc import Sequence

from tests.clients.features import (
    CLIENTS,
    CODEX_CLIENT,
    DIFFERENT,
    MESSAGES_CLIENTS,
    RESPONSES_CLIENTS,
    TRACKERS_OWN,
    Client,
)
from tests.reference.table import items, table


def libraries() -> str:
    """Return the table of libraries and features of completions, and the reasons for what differs."""
    return _table(CLIENTS) + "\n\n" + items(f"**{feature}:** {reason}" for feature, reason in DIFFERENT.items())


def of_responses() -> str:
    """Return the table of clients and features of the Responses API."""
    return _table((*RESPONSES_CLIENTS, CODEX_CLIENT))


def of_messages() -> str:
    """Return the table of clients and features of the Messages API."""
    return _table(MESSAGES_CLIENTS)


def _table(clients: Sequence[Client]) -> str:
    rows = [["tested version", *(client.version for client in clients)]]
    rows += [[feature, *(_cell(client, feature) for client in clients)] for feature in clients[0].features]
    return table(["feature", *(client.title for client in clients)], rows)


def _cell(client: Client, feature: str) -> str:
    if feature in client.missing:
        return "–"
    if feature in TRACKERS_OWN:
        return "works"
    return "differs" if feature in DIFFERENT else "same"
