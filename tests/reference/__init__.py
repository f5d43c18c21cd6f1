"""Write the generated parts of the pages in docs/reference, and of docs/clients.md. The rest is written by hand.

A part is between `<!-- python -m tests.reference: NAME -->` and `<!-- end -->`. `python -m tests.reference` writes all
of them; tests/unit/test_reference.py fails when a page and the code differ.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from tests.reference import clients, errors, http, keys, library, settings

FOLDER = Path(__file__).parents[2] / "docs" / "reference"
PARTS: dict[str, Callable[[], str]] = {
    "settings": settings.text,
    "keys of a shard": keys.of_a_shard,
    "control keys": keys.control,
    "channels": keys.channels,
    "error types": errors.types,
    "codes": errors.codes,
    "calls": http.calls,
    "parameters": http.parameters,
    "bodies": http.bodies,
    "library": library.text,
    "client libraries": clients.libraries,
    "clients of the Responses API": clients.of_responses,
    "clients of the Messages API": clients.of_messages,
}
_PART = re.compile(r"(?<=<!-- python -m tests\.reference: )([\w ]+)( -->\n).*?(?=<!-- end -->)", re.DOTALL)


def pages() -> list[Path]:
    """Return the pages that have generated parts."""
    return [*sorted(FOLDER.glob("*.md")), FOLDER.parent / "clients.md"]


def named(page: str) -> list[str]:
    """Return the names of the parts of a page."""
    return [match[1] for match in _PART.finditer(page)]


def filled(page: str) -> str:
    """Return the page with each part generated anew."""
    return _PART.sub(lambda match: f"{match[1]}{match[2]}\n{PARTS[match[1]]().strip()}\n\n", page)
