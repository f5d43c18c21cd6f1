"""Take what is queued, and measure it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Any

import orjson

from lifecycle.errors import StoreUnavailable
from lifecycle.store.membership import fenced
from lifecycle.store.results import Offer, QueuedPage, QueuedRequest, Run, Start, Taken
from lifecycle.store.runner import ScriptRunner, as_text

TAKE_LIMIT = 16  # requests that one take starts, which takes Redis 2 ms at most
_BODIES_BYTES = 1024 * 1024  # that one take returns, beside the first body


class Queues(ScriptRunner):
    """The part of the Store that knows the queues of models."""

    async def take(
        self,
        shard: int,
        worker: str,
        number: int,
        nonce: str,
        models: Sequence[str],
        slots: int,
        offer: Offer | None = None,
        *,
        gives_up: int | None = None,
    ) -> Taken | None:
        """Begin attempts on the next queued requests of these models in one shard, `slots` or 16 of them at most.

        The models are served in turn. Each attempt gets the next number of its request, and its first stream entry
        makes Redis refuse tokens of all earlier attempts. It also gets `nonce`, which distinguishes it from another
        start that gets the same number after Redis has lost this one. What the worker's `offer` does not serve stays
        queued, and some of it is returned. A request that is past a time limit ends, and so does one that has tokens
        when the engine cannot continue behind them.

        The worker waits for a bell afterwards unless it has no free slot left. With no `slots` it stops waiting, and
        another waiting worker is rung if something is queued.

        `gives_up` is the priority of a running request that the worker would move away for one of better priority.
        Nothing else is taken then. A worker that gets nothing, or asks for nothing with no `slots`, waits for such a
        request: it is rung when one is queued and no worker waits that has a free slot or runs something worse.

        `number` counts the takes of the worker in the shard. A repetition with the same number returns the same runs,
        without those that run there no more. None is returned when a later take has been executed. Raises Fenced when
        the worker has expired.
        """
        offer = offer or Offer()
        reply = await self._call(
            "take",
            self._prefixes[shard],
            worker,
            number,
            nonce,
            orjson.dumps(list(models)),
            min(slots, TAKE_LIMIT),
            _BODIES_BYTES,
            int(offer.resumable),
            self.settings.retention_secs,
            " ".join(offer.accepts),
            offer.endpoints,
            "" if gives_up is None else gives_up,
        )
        what = as_text(reply[0])
        if what == "fenced":
            raise fenced(worker)
        if what == "stale":
            return None
        return Taken([_run_of(run, nonce) for run in reply[1]], list(map(_queued_of, reply[2])), bool(reply[3]))

    async def queued_page(self, shard: int, before: QueuedPage, limit: int) -> QueuedPage:
        """Return the queued requests among the next `limit` of a shard that are inflight, behind another page.

        The oldest come first. Raises StoreUnavailable.
        """
        reply = await self.run("queued", self._prefixes[shard], before.since, before.rid, limit)
        return QueuedPage(list(map(_queued_of, reply[3:])), as_text(reply[1]), as_text(reply[2]), bool(reply[0]))

    async def queue_depth(self, model: str, owner: str) -> int:
        """Return how many requests of an owner wait for this model in the shards that answer.

        A shard that is unavailable counts as 0, so the number is then too small.
        """
        counts = await self._each("HGET", [prefix + "queued:" + model for prefix in self._prefixes], owner)
        return sum(int(count or 0) for count in counts)

    async def queue_shares(self, model: str, owner: str) -> list[int]:
        """Return what waits under further limits in the shards that answer, see ShareLimits.

        These are the tokens and bytes of the owner, and the requests, tokens and bytes of the model.
        """
        fields = (f"t|{owner}", f"b|{owner}", "n", "t", "b")
        shares = await self._each("HMGET", [prefix + "shares:" + model for prefix in self._prefixes], *fields)
        return [sum(int(share[place] or 0) for share in shares) for place in range(len(fields))]

    async def queued_bytes(self) -> dict[str, int]:
        """Return how many bytes the queued requests' bodies have, by model, in the shards that answer."""
        found: Counter[str] = Counter()
        for flat in await self._each("HGETALL", [prefix + "queued_bytes" for prefix in self._prefixes]):
            found.update({as_text(model): int(size) for model, size in zip(flat[::2], flat[1::2], strict=True)})
        return dict(found)

    async def queue_length(self, model: str) -> int:
        """Return how many requests wait for a model in the shards that answer."""
        counts = await self._each("HGETALL", [prefix + "queued:" + model for prefix in self._prefixes])
        return sum(int(count) for flat in counts for count in flat[1::2])

    async def busy_shards(self, model: str) -> int:
        """Return in how many of the shards that answer requests wait for a model."""
        return sum(map(int, await self._each("EXISTS", [f"{prefix}levels:{model}" for prefix in self._prefixes])))

    async def _each(self, command: str, keys: Sequence[str], *args: str) -> list[Any]:
        """Return the replies about these keys of several shards, without those of shards that are unavailable."""
        asked = (self.commands.execute(command, key, *args) for key in keys)
        replies = await asyncio.gather(*asked, return_exceptions=True)
        for reply in replies:
            if isinstance(reply, BaseException) and not isinstance(reply, StoreUnavailable):
                raise reply
        return [reply for reply in replies if not isinstance(reply, BaseException)]


def _queued_of(reply: Sequence[bytes]) -> QueuedRequest:
    rid, model, endpoint, needs = map(as_text, reply)
    return QueuedRequest(rid, model, endpoint, tuple(needs.split()))


def _run_of(reply: Sequence[Any], nonce: str) -> Run:
    start = Start(
        attempt=int(reply[2]),
        base=int(reply[3]),
        body=reply[4],
        cancel_mode=reply[5].decode(),
        traceparent=reply[6].decode(),
        created_at=float(reply[7]),
        needs=tuple(reply[8].decode().split()),
        headers=reply[9],
        endpoint=reply[10].decode(),
        owner=reply[11].decode(),
        nonce=nonce,
        length=int(reply[12]),
        priority=int(reply[13]),
        preemptions=int(reply[14]),
    )
    return Run(reply[0].decode(), reply[1].decode(), start)
