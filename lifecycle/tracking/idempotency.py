"""`Idempotency-Key`: a call that is repeated with the same key attaches to the request that the first one started.

The key names a request id, and the admitting script decides who was first, so nothing starts twice whatever races or
crashes. Without an id of the client's own it is derived from the key; with one, the first such id is kept under the
key, since a proxy on the way may make a new one for each try.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from lifecycle.store.scripts import Store
from lifecycle.tracking.admission import AdmissionRequest, AdmittedRequest, Rejected
from lifecycle.tracking.tracker import Tracker

KEY = re.compile(r"[\x21-\x7e]{1,255}")
_NAMED_SECS = 1800.0  # and the retention: clients repeat a call within minutes, and a name costs memory
_DIGEST_CHARS = 32  # 128 bits
_TRIES = 5


@dataclass(frozen=True, slots=True)
class Idempotency:
    """`key` stands for who sends which key to which endpoint, `body` for what is to be done."""

    key: str
    body: str

    @classmethod
    def of(cls, key: str, endpoint: str, body: bytes, owner: str = "") -> Idempotency:
        """`owner`: whose key it is; another owner's equal key is another key."""
        return cls(_digest("\0".join((owner, endpoint, key)).encode()), _digest(body))

    @property
    def mark(self) -> str:
        """How the record remembers it."""
        return f"{self.key}:{self.body}"

    async def name(self, store: Store, prefix: str, given: str | None) -> str:
        """The id of the request this key stands for; `given` is the client's own, should this be the first call."""
        proposed = given or f"{prefix}-{self.key}"
        kept_ms = int((_NAMED_SECS + store.settings.retention_secs) * 1000)
        key = store.keys.prefix_of(self.key) + "named:" + self.key
        known = await store.command("SET", key, proposed, "NX", "GET", "PX", kept_ms, retry_for_secs=0.3)
        return known.decode() if known else proposed

    async def admit(self, tracker: Tracker, admit: AdmissionRequest) -> AdmittedRequest:
        """Admit the request, or attach to it. Raises Rejected as `Tracker.admit` does, and with `other_body`."""
        over_limit = False
        for _ in range(_TRIES):
            if not await tracker.known_here(admit.rid):
                try:
                    return await tracker.admit(admit)
                except Rejected as rejected:
                    if rejected.reason not in ("exists", "limit"):
                        raise
                    over_limit = rejected.reason == "limit"
            record = await tracker.store.read(admit.rid, retry_for_secs=0.3)
            if record is None and over_limit:
                raise Rejected("limit")
            if record is None:
                continue  # only being admitted here, or expired since
            if record.idempotency != self.mark:
                raise Rejected("other_body" if record.idempotency.startswith(self.key + ":") else "exists")
            flight = await tracker.attach(admit.rid)
            if flight is not None:
                return flight
        raise Rejected("contended")


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:_DIGEST_CHARS]
