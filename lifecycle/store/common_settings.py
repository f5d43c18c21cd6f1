"""Know the settings that all replicas of a cluster share, and carry those that are changed while they run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lifecycle.settings import Settings

COMMON = (
    "shards",
    "heartbeat_secs",
    "lease_secs",
    "sweep_secs",
    "retention_secs",
    "max_attempts",
    "queue_limit",
    "queue_bytes",
    "queue_without_workers",
)
CHANGEABLE = ("retention_secs", "max_attempts", "queue_limit", "queue_bytes", "queue_without_workers")
"""Those that `lifecycle settings set` changes for a running cluster."""


class CommonSettings:
    """Remember which configuration of the cluster a process runs with.

    `since` is the time at which the first replica wrote the configuration, and `revision` counts the changes since
    then. Both are empty before the process has joined. After a loss of data the configuration with the earliest time
    counts, so that a newcomer cannot end the replicas that run.
    """

    def __init__(self) -> None:
        self.since = ""
        self.revision = 0


def as_texts(settings: Settings) -> dict[str, str]:
    """Return the common settings by name, as Redis holds them."""
    return {name: as_text(getattr(settings, name)) for name in COMMON}


def as_text(value: Any) -> str:
    """Return a setting's value as Redis holds it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value:.15g}"


def from_texts(texts: Mapping[str, str]) -> dict[str, Any]:
    """Return those of these values that are common settings, in their types. Raises ValueError for a malformed one."""
    return {name: _value(name, texts[name]) for name in COMMON if name in texts}


def _value(name: str, text: str) -> Any:
    kind = Settings.model_fields[name].annotation
    if kind is bool:
        return text == "true"
    return int(text) if kind is int else float(text)
