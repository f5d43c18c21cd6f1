"""Limit what waits where it lies in several shards, so that the limits hold for all of them together.

With one shard the admitting script itself compares what waits with the limits. With several no script can, so what
waits is added up before an admission: for each admission when the sum is near its limit, else at most once in a tenth
of a second. Frontends that admit at the same moment may exceed the limits by what they admit in that moment.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Literal, TypeVar

from lifecycle.queue_share import NO_SHARE
from lifecycle.settings import PerSettings, Settings
from lifecycle.store.new_request import AdmissionRequest, ShareLimits
from lifecycle.store.transitions import Store

_FRESH_SECS = 0.1
_NEAR = 0.5  # of the limit
_FLOWS = 1000  # whose sums are cached at most
_UNKNOWN_OUTPUT = 256  # tokens of a call that sets no limit, until the script knows the model's mean

_Key = TypeVar("_Key")
_Refusal = Literal["full", "full_bytes", "queue_limit", "full_model"]


class _Sums:
    """Keep sums over all shards as they were lately, with what was admitted here since."""

    def __init__(self) -> None:
        self.values: list[int] = []
        self._read_at = float("-inf")

    def is_due(self, limits: Sequence[int]) -> bool:
        """Return whether the sums have to be read again: they are old, or one is near its limit. 0 is no limit."""
        is_near = any(value >= limit * _NEAR for value, limit in zip(self.values, limits, strict=False) if limit)
        return is_near or time.monotonic() - self._read_at > _FRESH_SECS

    def replace(self, values: list[int], read_at: float) -> None:
        """Take the sums that were read at a time of the monotonic clock."""
        self.values, self._read_at = values, read_at

    async def refresh(self, limits: Sequence[int], read: Callable[[], Awaitable[list[int]]]) -> None:
        """Read the sums again if that is due."""
        if self.is_due(limits):
            now = time.monotonic()
            self.replace(await read(), now)

    def add(self, *numbers: int) -> None:
        """Count what is admitted."""
        self.values = [value + number for value, number in zip(self.values, numbers, strict=True)]


def share_limits(settings: Settings, admit: AdmissionRequest) -> ShareLimits | None:
    """Return the further limits of a request, the smaller one of the settings' and its key's; None for none."""
    share, general = admit.place.share, _LIMITS.of(settings)
    if share is NO_SHARE:
        return general if any(general) else None
    limits = general._replace(
        owner_requests=share.requests,
        owner_tokens=_smaller(general.owner_tokens, share.tokens),
        owner_bytes=_smaller(general.owner_bytes, share.body_bytes),
    )
    return limits if any(limits) else None


def _limits_of(settings: Settings) -> ShareLimits:
    return ShareLimits(
        owner_tokens=settings.owner_queue_tokens,
        owner_bytes=settings.owner_queue_bytes,
        model_requests=settings.model_queue_limit,
        model_tokens=settings.model_queue_tokens,
        model_bytes=settings.model_queue_bytes,
    )


_LIMITS = PerSettings(_limits_of)


def _smaller(one: int, other: int) -> int:
    return min(one, other) if one and other else one or other


class QueueLimit:
    """Know approximately what each owner has waiting for a model, and how large the bodies of all requests are."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._depths: dict[tuple[str, str], _Sums] = {}
        self._of_owners: dict[tuple[str, str], _Sums] = {}  # tokens, bytes
        self._of_models: dict[str, _Sums] = {}  # requests, tokens, bytes of all owners
        self._bytes = _Sums()

    async def refusal(self, admit: AdmissionRequest) -> _Refusal | None:
        """Return why a request may not be queued, or None, and count it then.

        A shard that is unavailable counts as empty: it refuses admissions itself, and must not stop the others.
        """
        settings, store = self._store.settings, self._store
        if settings.shards == 1:
            return None
        flow, size = (admit.labels.model, admit.owner), len(admit.body)
        limits = share_limits(settings, admit)
        depth, most = _cached(self._depths, flow), settings.queue_limit
        nearest = _smaller(most, limits.owner_requests) if limits else most
        await depth.refresh([nearest], lambda: _alone(store.queue_depth(*flow)))
        if depth.values[0] >= most:
            return "full"
        estimate = admit.place.estimate
        tokens = estimate.prompt + (_UNKNOWN_OUTPUT if estimate.output is None else estimate.output)
        if limits is not None:
            of_owner, of_model = _cached(self._of_owners, flow), _cached(self._of_models, flow[0])
            if of_owner.is_due(limits[1:3]) or of_model.is_due(limits[3:]):
                now, values = time.monotonic(), await store.queue_shares(*flow)
                of_owner.replace(values[:2], now)
                of_model.replace(values[2:], now)
            held = (depth.values[0], *of_owner.values, *of_model.values)
            refusal = _share_refusal(limits, held, tokens, size)
            if refusal is not None:
                return refusal
        await self._bytes.refresh([settings.queue_bytes], lambda: _alone(self._queued_bytes()))
        if self._bytes.values[0] and self._bytes.values[0] + size > settings.queue_bytes:
            return "full_bytes"
        depth.add(1)
        self._bytes.add(size)
        if limits is not None:
            of_owner.add(tokens, size)
            of_model.add(1, tokens, size)
        return None

    async def _queued_bytes(self) -> int:
        return sum((await self._store.queued_bytes()).values())


def _share_refusal(
    limits: ShareLimits, held: Sequence[int], tokens: int, size: int
) -> Literal["queue_limit", "full_model"] | None:
    """Return which further limit refuses a request, as the script `admit` does for one shard."""
    added = (1, tokens, size, 1, tokens, size)
    beyond = [
        limit > 0 and number > 0 and number + more > limit
        for limit, number, more in zip(limits, held, added, strict=True)
    ]
    if any(beyond[:3]):
        return "queue_limit"
    return "full_model" if any(beyond[3:]) else None


def _cached(sums: dict[_Key, _Sums], key: _Key) -> _Sums:
    if len(sums) >= _FLOWS and key not in sums:
        sums.clear()
    return sums.setdefault(key, _Sums())


async def _alone(number: Awaitable[int]) -> list[int]:
    return [await number]
