"""Log-ins to the dashboard: a cookie that every frontend can check, and none has to remember.

`<name>:<expires>:<signature>`. The signature is made of the key's hash and of a secret in Redis: whoever has read the
file of keys alone cannot sign, and a key that is taken out of it ends its log-ins.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time

from frontend.auth.api_keys import ApiKey, Caller, Keyring
from lifecycle.store.transitions import Store

COOKIE = "lifecycle_session"
_LONGEST = 256
_DOUBT_SECS = 1.0  # how often at most the secret is asked for again: Redis may have lost it, and has another then


class Sessions:
    def __init__(self, keyring: Keyring, store: Store) -> None:
        self._keyring = keyring
        self._store = store
        self._secret = b""
        self._asked_at = float("-inf")

    async def begin(self, key: ApiKey) -> str:
        """The value of the cookie. Raises StoreUnavailable."""
        await self._ask()
        # A wall clock will do here: hours, and nobody else's state depends on it.
        expires = int(time.time() + self._store.settings.session_secs)
        return f"{key.caller.name}:{expires}:{self._sign(key, expires)}"

    async def caller(self, cookie: str) -> Caller | None:
        """None when it is forged, has expired, or its key is gone. Raises StoreUnavailable."""
        name, _, rest = cookie[:_LONGEST].partition(":")
        expires, _, signature = rest.partition(":")
        if not (expires.isascii() and expires.isdigit()) or int(expires) < time.time() or not signature.isascii():
            return None
        keys = self._keyring.named(name)
        for _ in range(2):
            for key in keys:
                if self._secret and hmac.compare_digest(self._sign(key, int(expires)), signature):
                    return key.caller
            if not keys or time.monotonic() - self._asked_at < _DOUBT_SECS:
                return None
            await self._ask()
        return None

    async def _ask(self) -> None:
        """For the secret that all frontends share; theirs is the first that was ever proposed."""
        self._secret = await self._store.run("secret", self._store.keys.control, secrets.token_hex(32))
        self._asked_at = time.monotonic()

    def _sign(self, key: ApiKey, expires: int) -> str:
        content = f"{key.caller.name}:{expires}".encode()
        return hmac.new(self._secret + key.digest, content, hashlib.sha256).hexdigest()
