"""The pages of docs/reference: prose by hand, and parts that are written from the code.

A part stands between `<!-- python -m tests.reference: NAME -->` and `<!-- end -->`. `python -m tests.reference` writes
them; tests/unit/test_reference.py fails when a page does not say what the code says.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from tests.reference import errors, http, keys, settings

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
}
_PART = re.compile(r"(?<=<!-- python -m tests\.reference: )([\w ]+)( -->\n).*?(?=<!-- end -->)", re.DOTALL)


def pages() -> list[Path]:
    return sorted(FOLDER.glob("*.md"))


def named(page: str) -> list[str]:
    """The parts of a page."""
    return [match[1] for match in _PART.finditer(page)]


def filled(page: str) -> str:
    """The page with each part as the code has it now."""
    return _PART.sub(lambda match: f"{match[1]}{match[2]}\n{PARTS[match[1]]().strip()}\n\n", page)
