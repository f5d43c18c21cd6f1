"""Sign and check the cookies of dashboard sessions. Every frontend can check them, and none stores them.

A cookie is `<name>:<expires>:<signature>`. The signature is made from the hash of the API key and a secret in Redis.
So the key file alone is not enough to forge one, and removing a key from the file ends its sessions.
"""

from __future__ import annotations

import hashlib
import hmac
import time

from lifecycle.fastapi.api_key import ApiKey
from lifecycle.fastapi.api_keys import Keyring
from lifecycle.fastapi.caller import Caller
from lifecycle.store.transitions import Store

COOKIE = "lifecycle_session"
_MAX_CHARS = 256
_REFETCH_SECS = 1.0  # the shortest time between two reads of the secret; Redis may have lost it and got another


class Sessions:
    """Begin sessions, and find the caller of a session's cookie."""

    def __init__(self, keyring: Keyring, store: Store) -> None:
        self._keyring = keyring
        self._store = store
        self._secret = b""
        self._fetched_at = float("-inf")

    async def begin(self, key: ApiKey) -> str:
        """Return the cookie's value for a new session. Raises StoreUnavailable."""
        await self._fetch_secret()
        # The wall clock is precise enough: sessions last for hours and no other state depends on it.
        expires = int(time.time() + self._store.settings.session_secs)
        return f"{key.caller.name}:{expires}:{self._sign(key, expires)}"

    async def caller(self, cookie: str) -> Caller | None:
        """Return the caller; None when the cookie is forged or expired, or its key removed. Raises StoreUnavailable."""
        name, _, rest = cookie[:_MAX_CHARS].partition(":")
        expires, _, signature = rest.partition(":")
        if not (expires.isascii() and expires.isdigit()) or int(expires) < time.time() or not signature.isascii():
            return None
        keys = self._keyring.named(name)
        for _ in range(2):
            for key in keys:
                if self._secret and hmac.compare_digest(self._sign(key, int(expires)), signature):
                    return key.caller
            if not keys or time.monotonic() - self._fetched_at < _REFETCH_SECS:
                return None
            await self._fetch_secret()
        return None

    async def _fetch_secret(self) -> None:
        """Read the secret that all frontends share. The first proposed one is kept."""
        self._secret = await self._store.read_secret()
        self._fetched_at = time.monotonic()

    def _sign(self, key: ApiKey, expires: int) -> str:
        content = f"{key.caller.name}:{expires}".encode()
        return hmac.new(self._secret + key.digest, content, hashlib.sha256).hexdigest()
