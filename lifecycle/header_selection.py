"""Select the headers of a call that reach the engine."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from typing import NamedTuple, Self

NOTHING = "off"
"""The value of the setting that forwards no header."""

NEVER_FORWARDED = frozenset(
    {
        # credentials
        "authorization",
        "cookie",
        "proxy-authenticate",
        "proxy-authorization",
        "set-cookie",
        "x-api-key",
        # of one connection
        "connection",
        "expect",
        "host",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        # for the frontend itself
        "idempotency-key",
        "last-event-id",
        "traceparent",
        "x-deadline-secs",
        "x-disconnect-grace-secs",
        "x-first-token-timeout-secs",
        "x-on-disconnect",
        "x-parent-request-id",
        "x-queue-timeout-secs",
        "x-request-id",
        "x-webhook-url",
    }
)
_NEVER_PREFIX = "content-"
_NAME = re.compile(r"[a-z0-9!#$%&'+.^_`|~-]+\*?")


class HeaderSelection(NamedTuple):
    """Hold the names that LIFECYCLE_FORWARD_HEADERS selects, in lower case.

    Credentials, the headers of one connection, those of the body, and those that the frontend itself obeys are never
    selected, not even by their own name.
    """

    names: frozenset[str]
    prefixes: tuple[str, ...]
    refused: tuple[str, ...]  # names in the setting that are never forwarded

    @classmethod
    @functools.lru_cache(maxsize=16)
    def parse(cls, text: str) -> Self:
        """Read comma-separated names, of which a trailing `*` makes a prefix; `off` or '' selects nothing.

        Raise ValueError for what cannot be the name of a header.
        """
        given = [name.strip().lower() for name in text.split(",")] if text.strip().lower() not in ("", NOTHING) else []
        for name in given:
            if not _NAME.fullmatch(name):
                raise ValueError(
                    f"{name!r} is not the name of a header; "
                    f"name headers, separated by commas, each with or without a * at its end, or write {NOTHING}"
                )
        refused = tuple(name for name in given if _is_never_forwarded(name.removesuffix("*")))
        kept = [name for name in given if name not in refused]
        names = frozenset(name for name in kept if not name.endswith("*"))
        prefixes = tuple(name.removesuffix("*") for name in kept if name.endswith("*"))
        return cls(names, prefixes, refused)

    def select(self, headers: Mapping[str, str]) -> dict[str, str]:
        """Return the selected ones of a call's headers, whose names are in lower case."""
        names, prefixes = self.names, self.prefixes
        found = {
            name: value for name, value in headers.items() if name in names or (prefixes and name.startswith(prefixes))
        }
        if not found:
            return found
        of_connection = {name.strip() for name in headers.get("connection", "").lower().split(",")}
        return {
            name: value for name, value in found.items() if name not in of_connection and not _is_never_forwarded(name)
        }


def _is_never_forwarded(name: str) -> bool:
    return name in NEVER_FORWARDED or name.startswith(_NEVER_PREFIX)
