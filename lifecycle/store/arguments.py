"""Encode the arguments of commands and scripts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hiredis import pack_command

from lifecycle.encoding import encodable, encode_json
from lifecycle.types import TRANSLATED, ErrorDetail

MESSAGE_CHARS = 4096  # of an error message or a reason; the rest is cut off


def pack(args: tuple[Any, ...]) -> bytes:
    """Return a command as Redis reads it. What UTF-8 cannot carry is replaced: an engine's words may hold anything."""
    try:
        packed: bytes = pack_command(args)
    except UnicodeEncodeError:
        cleaned: Any = tuple(encodable(arg) if isinstance(arg, str) else arg for arg in args)
        packed = pack_command(cleaned)
    return packed


def endpoints_argument(offered: Mapping[str, str]) -> str:
    """Return the endpoints that a worker offers, each between spaces, with `~` before a translated one."""
    names = (f"~{name}" if how == TRANSLATED else name for name, how in offered.items())
    return f" {' '.join(names)} "


def encode_detail(detail: ErrorDetail | None) -> bytes:
    """Return JSON, with long texts cut off as an error message is; empty for no detail."""
    if detail is None:
        return b""
    return encode_json([part[:MESSAGE_CHARS] if isinstance(part, str) else part for part in detail])
