"""Deliver the events of the outbox: claim those that are due, send them, and settle them.

Each frontend with webhooks does this for all shards. It asks a shard when a request of its own has ended there, when a
delivery of its own is to be tried again, and once in a heartbeat for what other frontends have left.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter

from redis.exceptions import RedisError

from lifecycle.aio import tasks
from lifecycle.aio.rate_limiter import RateLimiter
from lifecycle.errors import StoreError
from lifecycle.ids import new_nonce
from lifecycle.store.transitions import Store
from lifecycle.store.webhooks import DeliveryOutcome, WebhookEvent
from lifecycle.telemetry.metrics import Metrics
from lifecycle.types import RequestRecord
from lifecycle.webhooks.config import WebhookConfig
from lifecycle.webhooks.event_body import event_body, event_type
from lifecycle.webhooks.sender import Sent, WebhookSender
from lifecycle.webhooks.target import origin_of

log = logging.getLogger(__name__)

DELIVERIES = 64  # that one frontend has under way
ORIGIN_LIMIT = 16  # of them to one receiver, so that a slow one does not hold up the others
_BATCH = 4  # places that a receiver which had none must have before more is claimed for it
_LONGEST_PAUSE_SECS = 4 * 3600.0
_GROWTH = 3.0  # of the pauses between attempts
_DROPS_LOGGED_PER_SEC = 1.0


class WebhookDeliverer:
    """Deliver events until cancelled. At most DELIVERIES are under way at a time."""

    def __init__(self, store: Store, metrics: Metrics, config: WebhookConfig) -> None:
        self._store = store
        self._metrics = metrics
        self._config = config
        self._heartbeat_secs = store.settings.heartbeat_secs
        self._claim_secs = 2 * config.timeout_secs  # longer than a delivery and its settlement take
        self._due_at = [0.0] * store.settings.shards  # by the loop's clock
        self._unclaimed: set[int] = set()  # shards with due events that found no free place
        self._under_way: Counter[str] = Counter()  # by origin
        self._changed = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._logged_drops = RateLimiter(_DROPS_LOGGED_PER_SEC)

    def wake(self, record: RequestRecord) -> None:
        """Deliver the event of a request that has ended, at once. Called for every end of an own request."""
        if record.webhook == "waiting":
            self._ask(self._store.keys.shard_of(record.id), 0.0)
        elif record.webhook == "dropped":
            self._metrics.webhooks.labels("dropped").inc()
            if self._logged_drops.take():
                log.error("the outbox of webhooks is full: that of %s is dropped; see lifecycle doctor", record.id)

    async def run(self) -> None:
        """Deliver until cancelled."""
        config = self._config
        sender = WebhookSender(config.signer, allow_private=config.allow_private, timeout_secs=config.timeout_secs)
        try:
            async with asyncio.TaskGroup() as group:
                while True:
                    await self._wait()
                    await self._claim_due(group, sender)
        finally:
            await sender.aclose()

    async def drain(self, timeout_secs: float) -> None:
        """Wait until the deliveries that are under way have ended, for at most `timeout_secs`.

        What has not ended is delivered by another frontend.
        """
        try:
            async with asyncio.timeout(timeout_secs):
                await self._idle.wait()
        except TimeoutError:
            log.info("%d webhooks are left to other frontends", self._under_way.total())

    def _ask(self, shard: int, after_secs: float) -> None:
        at = asyncio.get_running_loop().time() + after_secs
        if at < self._due_at[shard]:
            self._due_at[shard] = at
            self._changed.set()

    async def _wait(self) -> None:
        """Wait until a shard is to be asked and there is a free place."""
        loop = asyncio.get_running_loop()
        while True:
            self._changed.clear()
            wait_secs = min(self._due_at) - loop.time()
            if self._under_way.total() >= DELIVERIES:
                wait_secs = self._heartbeat_secs
            elif wait_secs <= 0:
                return
            try:
                async with asyncio.timeout(wait_secs):
                    await self._changed.wait()
            except TimeoutError:
                tasks.check_cancelled()

    async def _claim_due(self, group: asyncio.TaskGroup, sender: WebhookSender) -> None:
        now, free = asyncio.get_running_loop().time(), DELIVERIES - self._under_way.total()
        due = [shard for shard, at in enumerate(self._due_at) if at <= now]
        random.shuffle(due)
        asked = due[:free]
        for shard in asked:
            self._due_at[shard] = now + self._heartbeat_secs * random.uniform(0.8, 1.0)
        # All at once, so that no shard waits for another one whose server is away.
        await asyncio.gather(*(self._claim(shard, free // len(asked), group, sender) for shard in asked))
        tasks.check_cancelled()

    async def _claim(self, shard: int, limit: int, group: asyncio.TaskGroup, sender: WebhookSender) -> None:
        token = new_nonce()
        try:
            claimed = await self._store.claim_webhooks(
                shard,
                token,
                limit=limit,
                claim_secs=self._claim_secs,
                under_way=self._under_way,
                origin_limit=ORIGIN_LIMIT,
            )
        except StoreError as failure:
            log.debug("webhooks wait for Redis: %s", failure)
            return
        except RedisError:
            log.exception("Redis refused a claim of webhooks")
            return
        except (KeyError, ValueError):  # the claims lapse, and the content expires
            log.exception("the content of a webhook is malformed")
            return
        if claimed.lost:
            self._metrics.webhooks.labels("given_up").inc(claimed.lost)
            log.error("%d webhooks have expired, because no frontend delivered them for a day", claimed.lost)
        for event in claimed.events:
            self._begin(shard, token, event, group, sender)
        if claimed.more and claimed.events:
            self._ask(shard, 0.0)
        elif claimed.more:
            self._unclaimed.add(shard)

    def _begin(
        self, shard: int, token: str, event: WebhookEvent, group: asyncio.TaskGroup, sender: WebhookSender
    ) -> None:
        origin = origin_of(event.url)
        self._under_way[origin] += 1
        self._idle.clear()

        def ended(_: asyncio.Task[None]) -> None:
            self._under_way[origin] -= 1
            self._under_way += Counter()  # without what is 0
            if not self._under_way:
                self._idle.set()
            if self._under_way[origin] <= ORIGIN_LIMIT - _BATCH:
                while self._unclaimed:
                    self._ask(self._unclaimed.pop(), 0.0)
            self._changed.set()

        group.create_task(self._deliver(shard, token, event, sender), name="webhook").add_done_callback(ended)

    async def _deliver(self, shard: int, token: str, event: WebhookEvent, sender: WebhookSender) -> None:
        """Send one event and settle it. A failure concerns this event only: its claim lapses, and it is due again."""
        try:
            sent = await sender.send(event.url, event.id, event_body(event))
            await self._settle(shard, token, event, sent)
        except StoreError as failure:
            log.warning("the webhook %s is sent again, because its delivery was not recorded: %s", event.id, failure)
        except Exception:
            log.exception("the delivery of the webhook %s failed", event.id)

    async def _settle(self, shard: int, token: str, event: WebhookEvent, sent: Sent) -> None:
        outcome, pause_secs = self._judge(event, sent)
        settled = await self._store.settle_webhook(
            shard, event, token, outcome, retry_after_secs=pause_secs, retry_for_secs=self._config.timeout_secs / 2
        )
        if settled == "lapsed" and outcome != "delivered":
            return  # another frontend has it
        if settled == "removed" and outcome == "failed":
            outcome = "given_up"
        self._metrics.webhooks.labels(outcome).inc()
        what = f"{event_type(event)} of {event.rid} to {origin_of(event.url)}"
        if outcome == "given_up":
            log.error("the webhook %s is given up after %d attempts: %s", what, event.failures + 1, sent.reason)
        elif outcome == "failed":
            log.warning("the webhook %s failed and is sent again in %.1f s: %s", what, pause_secs, sent.reason)
            self._ask(shard, pause_secs)

    def _judge(self, event: WebhookEvent, sent: Sent) -> tuple[DeliveryOutcome, float]:
        """Return the outcome of a delivery, and for `failed` the pause in seconds until the next attempt."""
        if not sent.reason:
            return "delivered", 0.0
        if sent.is_final or event.failures + 1 >= self._config.attempts:
            return "given_up", 0.0
        return "failed", pause_after(event.failures + 1, self._config.retry_secs) * random.uniform(0.8, 1.2)


def pause_after(failures: int, first_secs: float) -> float:
    """Return the seconds to wait after this many failed deliveries."""
    return min(first_secs * _GROWTH ** min(failures - 1, 30), max(first_secs, _LONGEST_PAUSE_SECS))
