"""Bound the head of a call, and take an offer to upgrade the connection out of it."""

from __future__ import annotations

from collections.abc import Sequence

from lifecycle.fastapi.errors import ApiError
from lifecycle.types import ErrorType

MAX_HEAD_BYTES = 64 * 1024
_LINE_BYTES = len(": \r\n")
_OF_THE_OFFER = frozenset({b"upgrade", b"http2-settings"})

Fields = Sequence[tuple[bytes, bytes]]


def check_head(url: bytes, headers: Fields) -> None:
    """Check a complete head. Raises ApiError: 414 for the URL, 431 for all of it."""
    if len(url) >= MAX_HEAD_BYTES:
        raise too_large_head(is_url=True)
    if len(url) + sum(len(name) + len(value) + _LINE_BYTES for name, value in headers) > MAX_HEAD_BYTES:
        raise too_large_head(is_url=False)


def too_large_head(*, is_url: bool) -> ApiError:
    """Return the error 414 for a URL, or 431 for a head, that is beyond the limit."""
    if is_url:
        message = f"The URL is larger than {MAX_HEAD_BYTES} bytes; send a shorter one"
        return ApiError(ErrorType.VALIDATION, message, status=414, code="url_too_long")
    message = f"The head of the call is larger than {MAX_HEAD_BYTES} bytes; send smaller headers"
    return ApiError(ErrorType.VALIDATION, message, status=431, code="head_too_large")


def without_upgrade(method: bytes, url: bytes, version: str, headers: Fields) -> bytes:
    """Return the head of a call without its offer to upgrade, which a server may ignore (RFC 9110, section 7.8)."""
    lines = [b"%b %b HTTP/%b" % (method, url, version.encode())]
    for name, value in headers:
        if name == b"connection":
            kept = [token.strip() for token in value.split(b",") if token.strip().lower() not in _OF_THE_OFFER]
            if kept:
                lines.append(b"connection: " + b", ".join(kept))
        elif name not in _OF_THE_OFFER:
            lines.append(b"%b: %b" % (name, value))
    return b"\r\n".join((*lines, b"", b""))
