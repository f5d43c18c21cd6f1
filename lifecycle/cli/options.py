"""Define the options that several commands share, and parse their values."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
Host = Annotated[str, typer.Option("--host", help="Address to listen on.")]

_AGE = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s)?")
_UNIT_SECS = (86_400.0, 3600.0, 60.0, 1.0)


def not_empty(value: str | None) -> str | None:
    """Refuse an empty value: an unset variable in a script must not select everything."""
    if value == "":
        raise typer.BadParameter("the value is empty; omit the option to match any value")
    return value


def chosen(*allowed: str) -> Callable[[str | None], str | None]:
    """Return a callback that accepts only these values, or no value."""

    def check(value: str | None) -> str | None:
        if value is not None and value not in allowed:
            raise typer.BadParameter(f"{value!r} is not one of {', '.join(allowed)}")
        return value

    return check


def seconds(value: str | None) -> str | None:
    """Convert `90s`, `10m`, `1h30m`, `2d` or plain seconds to plain seconds.

    Raises typer.BadParameter for anything else.
    """
    if value is None:
        return None
    text = value.strip().lower()
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return text
    match = _AGE.fullmatch(text)
    if not text or match is None:
        raise typer.BadParameter(f"{value!r} is not a duration; write it like 90s, 10m, 1h30m or 2d")
    return str(sum(float(part) * unit for part, unit in zip(match.groups(), _UNIT_SECS, strict=True) if part))
