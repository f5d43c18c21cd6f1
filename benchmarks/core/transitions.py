"""The scripts that change or show one request or one replica, to be timed beside many requests."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

from benchmarks.core import bench
from lifecycle.ids import new_nonce
from lifecycle.local.embedded_redis import EmbeddedRedis
from lifecycle.store.merged_calls import CALLS_LIMIT
from lifecycle.store.results import START_LOST, StartedAttempt
from lifecycle.store.transitions import Store
from lifecycle.tokens.writer import FLUSH_REQUESTS
from lifecycle.types import CancelMode, ErrorType, OnDisconnect, Role
from tests.admitting import new_request

_TOKENS = 10
_ALONE_SHARE = 4  # one of so many calls is sent alone where the others are merged
_URL = "https://receiver.test/"

Work = Callable[[], Awaitable[object]]


def transitions(
    store: Store, redis: EmbeddedRedis, running: Sequence[str], replicas: int, forget: Callable[[EmbeddedRedis], None]
) -> list[tuple[str, Work]]:
    """Return one work for each script, in an order in which each finds its requests.

    `running` are requests of WORKER, of which a seventh is for each script that needs some. `forget` empties the log
    when a work has made its preparations.
    """
    count = len(running) // 7
    alone = count // _ALONE_SHARE
    parts = [running[begin : begin + count] for begin in range(0, 7 * count, count)]
    written, attached, left, failed, requeued, lost, shown = parts

    def each(call: Callable[[str], Awaitable[object]], rids: Sequence[str]) -> Work:
        return lambda: asyncio.gather(*(call(rid) for rid in rids))

    def one_by_one(call: Callable[[str], Awaitable[object]], rids: Sequence[str]) -> Work:
        async def work() -> None:
            for rid in rids:
                await call(rid)

        return work

    async def append() -> None:
        entries = [bench.tokens(rid, _TOKENS, [" token"] * _TOKENS) for rid in written]
        for begin in range(0, len(entries), FLUSH_REQUESTS):
            if refused := await store.append(0, bench.WORKER, entries[begin : begin + FLUSH_REQUESTS]):
                raise RuntimeError(f"{len(refused)} appends were refused: {refused[0][1]}")

    async def deliver() -> None:
        await asyncio.gather(*(_end_with_webhook(store, f"reported-{number}") for number in range(count)))
        forget(redis)
        claimed = await store.claim_webhooks(0, "token", limit=count, claim_secs=60.0, under_way={}, origin_limit=count)
        for event in claimed.events:
            await store.settle_webhook(0, event, "token", "delivered")

    async def renew() -> None:
        for number in range(replicas):
            await store.heartbeat(f"worker-joined-{number}", Role.WORKER, {}, [bench.MODEL])

    return [
        ("admit: a request", one_by_one(partial(bench.admit, store), [f"lone-{number}" for number in range(alone)])),
        (
            f"admit: {CALLS_LIMIT} requests",
            each(partial(bench.admit, store), [f"new-{number}" for number in range(count)]),
        ),
        ("take: as many requests as one call starts", lambda: bench.start_queued(store, count)),
        (f"append: the first {_TOKENS} tokens of {count} requests", append),
        ("finish: a request", one_by_one(lambda rid: bench.complete(store, rid, _TOKENS), written[:alone])),
        (f"finish: {CALLS_LIMIT} requests", each(lambda rid: bench.complete(store, rid, _TOKENS), written[alone:])),
        ("attach: a reader", each(lambda rid: store.attach(rid, "frontend-2", 1), attached)),
        (
            "disconnect: the last reader",
            each(lambda rid: store.disconnect(rid, _owner(rid), 0, "closed_unexpectedly", admitting=True), left),
        ),
        ("fail: a request", each(lambda rid: store.fail(rid, ErrorType.RESPONSE_TIMEOUT, "silence"), failed)),
        ("requeue: a request", each(lambda rid: store.requeue(rid, bench.WORKER, 1), requeued)),
        (
            "lost_start: a request",
            each(lambda rid: store.report_lost_start(rid, StartedAttempt(2, "unknown"), START_LOST), lost),
        ),
        ("timeline: a request", each(store.read_timeline, shown)),
        ("webhooks: claim, and settle each", deliver),
        (f"heartbeat: {replicas} replicas", renew),
        (f"roster: {replicas} replicas", lambda: asyncio.gather(*(store.roster() for _ in range(20)))),
    ]


def _owner(rid: str) -> str:
    return f"frontend-{int(rid.rpartition('-')[2]) % 10}"


async def _end_with_webhook(store: Store, rid: str) -> None:
    new = new_request(
        rid, new_nonce(), bench.LABELS, bench.FRONTEND, bench.BODY, OnDisconnect.CANCEL.value, webhook_url=_URL
    )
    await store.admit(new)
    await store.cancel(rid, CancelMode.KILL, "")
