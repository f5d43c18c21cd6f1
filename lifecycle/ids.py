"""Ids of requests, replicas and tokens (`<attempt>-<number>`)."""

from __future__ import annotations

import re
import secrets
from typing import NamedTuple

REQUEST_ID_CHARS = 128
REQUEST_ID = re.compile(rf"[A-Za-z0-9._-]{{1,{REQUEST_ID_CHARS}}}")
ENDPOINT = re.compile(r"[a-z0-9_]{1,64}")
MODEL_CHARS = 256
MODEL_RULE = f"a name of at most {MODEL_CHARS} characters without control characters"
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_TOKEN_ID = re.compile(r"([0-9]{1,19})-([0-9]{1,19})")


class TokenId(NamedTuple):
    """The id of one token: the SSE `id:` and the point to resume at. A stream entry has the id of its last token."""

    attempt: int
    number: int

    def __str__(self) -> str:
        return f"{self.attempt}-{self.number}"

    @classmethod
    def parse(cls, text: str) -> TokenId | None:
        """Return the id that the text stands for, or None when it is malformed."""
        match = _TOKEN_ID.fullmatch(text)
        return cls(int(match[1]), int(match[2])) if match else None


START = TokenId(0, 0)


def is_request_id(text: str) -> bool:
    """Return whether a client may use this text as a request id."""
    return REQUEST_ID.fullmatch(text) is not None


def is_endpoint(text: str) -> bool:
    """Return whether a request's endpoint may have this name: one of the API, or one that an application has chosen."""
    return ENDPOINT.fullmatch(text) is not None


def is_model_name(text: str) -> bool:
    """Return whether a model may have this name, as clients request it and as workers serve it."""
    return 0 < len(text.strip()) <= len(text) <= MODEL_CHARS and not _CONTROL.search(text)


def new_request_id(prefix: str) -> str:
    """Return a random request id of 128 bits that begins with `prefix`, such as `chatcmpl-` or `resp_`."""
    return f"{prefix}{secrets.token_hex(16)}"


def new_replica_id(role: str) -> str:
    """Return a random id for a replica, which it keeps for as long as it runs."""
    return f"{role}-{secrets.token_hex(6)}"


def rejoined_id(replica: str, times: int) -> str:
    """Return the id that a replica takes in a shard in which its lease has expired so many times."""
    return f"{replica}~{times}"


def replica_of(member: str) -> str:
    """Return the id of the replica that a shard knows under this id."""
    return member.partition("~")[0]


def new_start_nonce() -> str:
    """Return a random text of 8 characters that distinguishes one start of an attempt from another."""
    return secrets.token_urlsafe(6)


def new_nonce() -> str:
    """Return a random text that distinguishes one admission from another with the same request id."""
    return secrets.token_hex(8)
