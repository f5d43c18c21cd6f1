"""Request ids, replica ids, and token ids (`<attempt>-<number>`)."""

from __future__ import annotations

import re
import secrets
from typing import NamedTuple

REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
_TOKEN_ID = re.compile(r"([0-9]{1,19})-([0-9]{1,19})")


class TokenId(NamedTuple):
    """Names one token: the SSE `id:`, the resume point and, for the last token of an entry, its Redis id."""

    attempt: int
    number: int

    def __str__(self) -> str:
        return f"{self.attempt}-{self.number}"

    @classmethod
    def parse(cls, text: str) -> TokenId | None:
        """None when malformed."""
        match = _TOKEN_ID.fullmatch(text)
        return cls(int(match[1]), int(match[2])) if match else None


START = TokenId(0, 0)


def is_request_id(text: str) -> bool:
    return REQUEST_ID.fullmatch(text) is not None


def new_request_id(prefix: str) -> str:
    """A random id, 128 bits: `chatcmpl-…` or `cmpl-…`. The same id from header to record to response body."""
    return f"{prefix}-{secrets.token_hex(16)}"


def new_replica_id(role: str) -> str:
    """Unique per boot; a buried id never comes back."""
    return f"{role}-{secrets.token_hex(6)}"


def new_nonce() -> str:
    return secrets.token_hex(8)
