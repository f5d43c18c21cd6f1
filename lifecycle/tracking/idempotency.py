"""Attach a call that is repeated with the same `Idempotency-Key` to the request that the first call started.

The idempotency key maps to a request id, and the admitting script decides which call is the first, so no request starts
twice whatever races or crashes. Without a request id of the client's own, the id is derived from the idempotency key
and a secret; with one, the first such id is stored under the key, since a proxy may make a new id for each try.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from dataclasses import dataclass

from lifecycle.errors import StoreFull
from lifecycle.store.new_request import AdmissionRequest
from lifecycle.store.transitions import Store
from lifecycle.tracking.admission import AdmittedRequest, Rejected
from lifecycle.tracking.tracker import Tracker

KEY = re.compile(r"[\x21-\x7e]{1,255}")
_NAMED_SECS = 1800.0  # plus the retention: clients repeat a call within minutes, and a stored id costs memory
_DIGEST_CHARS = 32  # 128 bits
_TRIES = 5


@dataclass(frozen=True, slots=True)
class Idempotency:
    """Identify a call: `key` is a digest of owner, endpoint and idempotency key, `body` a digest of the body."""

    key: str
    body: str

    @classmethod
    def of(cls, key: str, endpoint: str, body: bytes, owner: str = "") -> Idempotency:
        """Digest a call. Equal idempotency keys of two owners are different keys."""
        return cls(_digest("\0".join((owner, endpoint, key)).encode()), _digest(body))

    @property
    def mark(self) -> str:
        """Return what the request's record stores to recognize a repetition."""
        return f"{self.key}:{self.body}"

    async def name(self, store: Store, prefix: str, given: str | None) -> str:
        """Return the id of the call's request; `given` is the client's own id, used if this is the first call.

        Raises StoreUnavailable.
        """
        proposed = given or prefix + await self._derived_id(store)
        kept_ms = int((_NAMED_SECS + store.settings.retention_secs) * 1000)
        name = self._name_key(store)
        try:
            known = await store.command("SET", name, proposed, "NX", "GET", "PX", kept_ms, retry_for_secs=0.3)
        except StoreFull:  # a repeated call starts nothing, so it is not refused
            known = await store.command("GET", name, retry_for_secs=0.3)
            if known is None:
                raise
        return known.decode() if known else proposed

    async def _derived_id(self, store: Store) -> str:
        """Return an id that every frontend makes of this key, and that nobody else can: it takes their secret."""
        secret = await store.read_secret(max_age_secs=store.settings.heartbeat_secs)
        return hmac.new(secret, self.key.encode(), hashlib.sha256).hexdigest()[:_DIGEST_CHARS]

    def _name_key(self, store: Store) -> str:
        return store.keys.prefix_of(self.key) + "named:" + self.key

    async def find(self, store: Store) -> str | None:
        """Return the id of the request of an earlier call with this key and body, or None when there is none.

        Raises StoreUnavailable.
        """
        name = await store.command("GET", self._name_key(store), retry_for_secs=0.3)
        record = await store.read(name.decode(), retry_for_secs=0.3) if name else None
        return record.id if record is not None and record.idempotency == self.mark else None

    async def admit(self, tracker: Tracker, admit: AdmissionRequest) -> AdmittedRequest:
        """Admit the request, or attach to it.

        Raises what `Tracker.admit` raises; Rejected also with `other_body` when the key was sent with another body, and
        with `contended` when the request came and went during each try.
        """
        for _ in range(_TRIES):
            if not await tracker.known_here(admit.rid):
                try:
                    return await tracker.admit(admit)
                except Rejected as rejected:  # a known request is attached to, whatever refuses new ones
                    if rejected.reason != "exists":
                        raise
            record = await tracker.store.read(admit.rid, retry_for_secs=0.3)
            if record is None:
                continue  # it is still being admitted elsewhere, or has expired since
            if record.idempotency != self.mark:
                raise Rejected("other_body" if record.idempotency.startswith(self.key + ":") else "exists")
            attached = await tracker.attach(admit.rid)
            if attached is not None:
                return attached
        raise Rejected("contended")


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:_DIGEST_CHARS]
