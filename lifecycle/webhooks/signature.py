"""Sign webhooks by the Standard Webhooks scheme, which OpenAI's libraries verify too."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from typing import NamedTuple, Self

_PREFIX = "whsec_"
_LEAST_BYTES, _MOST_BYTES = 16, 128
_MOST_SECRETS = 10


class Signer(NamedTuple):
    """Hold the secrets. While receivers change to a new one there are several, and each signs."""

    secrets: tuple[bytes, ...]

    def __repr__(self) -> str:
        """Return a text without the secrets."""
        return f"Signer({len(self.secrets)} secrets)"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read secrets, separated by spaces: `whsec_` and the key in base64.

        Raises ValueError, with a message that shows no secret.
        """
        words = text.split()
        if not words:
            raise ValueError("there is no secret")
        if len(words) > _MOST_SECRETS:
            raise ValueError(f"there are {len(words)} secrets; name at most {_MOST_SECRETS}")
        return cls(tuple(_key(word) for word in words))

    def headers(self, event_id: str, timestamp: int, body: bytes) -> dict[str, str]:
        """Return the headers for one delivery. `timestamp` is in Unix seconds, by the wall clock."""
        content = f"{event_id}.{timestamp}.".encode() + body
        signatures = (base64.b64encode(hmac.digest(key, content, hashlib.sha256)).decode() for key in self.secrets)
        return {
            "webhook-id": event_id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": " ".join(f"v1,{signature}" for signature in signatures),
        }


def _key(word: str) -> bytes:
    try:
        key = base64.b64decode(word.removeprefix(_PREFIX), validate=True) if word.startswith(_PREFIX) else b""
    except binascii.Error:
        key = b""
    if not _LEAST_BYTES <= len(key) <= _MOST_BYTES:
        raise ValueError(
            f"each secret must be {_PREFIX} and {_LEAST_BYTES} to {_MOST_BYTES} bytes in base64; "
            f'make one with: echo "{_PREFIX}$(openssl rand -base64 32)"'
        )
    return key
