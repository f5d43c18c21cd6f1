"""Sign and check the cookies of dashboard sessions. Every frontend can check them, and none stores them.

A cookie is `<name>:<expires>:<signature>`. The signature is made from the hash of the API key and a secret in Redis.
So the key file alone is not enough to forge one, and removing a key from the file ends its sessions.
"""

from __future__ import annotations

import hashlib
import hmac
import math
import time

from lifecycle.fastapi.api_key import ApiKey
from lifecycle.fastapi.api_keys import Keyring
from lifecycle.fastapi.caller import Caller
from lifecycle.store.transitions import Store

COOKIE = "lifecycle_session"
_MAX_CHARS = 256
_REFETCH_SECS = 1.0  # the age from which on a secret that does not fit is read again: Redis may have got another


class Sessions:
    """Begin sessions, and find the caller of a session's cookie."""

    def __init__(self, keyring: Keyring, store: Store) -> None:
        self._keyring = keyring
        self._store = store

    async def begin(self, key: ApiKey) -> str:
        """Return the cookie's value for a new session. Raises StoreUnavailable."""
        secret = await self._store.read_secret()
        # The wall clock is precise enough: sessions last for hours and no other state depends on it.
        expires = int(time.time() + self._store.settings.session_secs)
        return f"{key.caller.name}:{expires}:{_sign(secret, key, expires)}"

    async def caller(self, cookie: str) -> Caller | None:
        """Return the caller; None when the cookie is forged or expired, or its key removed. Raises StoreUnavailable."""
        name, _, rest = cookie[:_MAX_CHARS].partition(":")
        expires, _, signature = rest.partition(":")
        if not (expires.isascii() and expires.isdigit()) or int(expires) < time.time() or not signature.isascii():
            return None
        keys = self._keyring.named(name)
        for max_age_secs in (math.inf, _REFETCH_SECS) if keys else ():
            secret = await self._store.read_secret(max_age_secs)
            for key in keys:
                if hmac.compare_digest(_sign(secret, key, int(expires)), signature):
                    return key.caller
        return None


def _sign(secret: bytes, key: ApiKey, expires: int) -> str:
    content = f"{key.caller.name}:{expires}".encode()
    return hmac.new(secret + key.digest, content, hashlib.sha256).hexdigest()
