"""Describe which client libraries get the engine's own answers."""

from __future__ import annotations

from tests.clients.features import CLIENTS, DIFFERENT, FEATURES, Client
from tests.reference.table import items, table


def libraries() -> str:
    """Return the table of libraries and features, and the reasons for what differs."""
    rows = [["tested version", *(client.version for client in CLIENTS)]]
    rows += [[feature, *(_cell(client, feature) for client in CLIENTS)] for feature in FEATURES]
    shown = table(["feature", *(client.title for client in CLIENTS)], rows)
    return shown + "\n\n" + items(f"**{feature}:** {reason}" for feature, reason in DIFFERENT.items())


def _cell(client: Client, feature: str) -> str:
    if feature in client.missing:
        return "–"
    return "differs" if feature in DIFFERENT else "same"
