"""Encode the arguments of scripts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from lifecycle.encoding import encodable_value
from lifecycle.types import TRANSLATED, ErrorDetail

MESSAGE_CHARS = 4096  # of an error message or a reason; the rest is cut off


def endpoints_argument(offered: Mapping[str, str]) -> str:
    """Return the endpoints that a worker offers, each between spaces, with `~` before a translated one."""
    names = (f"~{name}" if how == TRANSLATED else name for name, how in offered.items())
    return f" {' '.join(names)} "


def encode_json(value: Any) -> bytes:
    """Return JSON. What JSON or UTF-8 cannot carry is replaced."""
    try:
        return orjson.dumps(value)
    except TypeError:
        return orjson.dumps(encodable_value(value))


def encode_detail(detail: ErrorDetail | None) -> bytes:
    """Return JSON, with long texts cut off as an error message is; empty for no detail."""
    if detail is None:
        return b""
    return encode_json([part[:MESSAGE_CHARS] if isinstance(part, str) else part for part in detail])
