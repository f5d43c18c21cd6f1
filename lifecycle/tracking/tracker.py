"""Track requests on a frontend, without HTTP.

The tracker admits requests, monitors those it owns, opens readers on any request of the cluster, and cancels by id. It
is a façade: the work is done by the parts that it puts together.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

from lifecycle.aio import tasks
from lifecycle.errors import StoreForbidden
from lifecycle.ids import START, TokenId
from lifecycle.replica.lease import Lease
from lifecycle.settings import Settings
from lifecycle.store.connect import Connections
from lifecycle.store.new_request import AdmissionRequest
from lifecycle.store.permissions import check_permissions, check_usable, forbidden_error
from lifecycle.store.results import Cancellation, Disconnection, Roster, Start
from lifecycle.store.server_info import warn_of_eviction
from lifecycle.store.worker_roster import Missing, Outage
from lifecycle.telemetry.metrics import Metrics
from lifecycle.tokens.reader import TokenReader
from lifecycle.tracking.admission import AdmittedRequest
from lifecycle.tracking.admission_control import AdmissionControl
from lifecycle.tracking.background import BackgroundTasks
from lifecycle.tracking.connection import ConnectionMonitor, ConnectionStatus
from lifecycle.tracking.forecast import Forecast
from lifecycle.tracking.frontend_state import FrontendState
from lifecycle.tracking.local_runs import LocalRuns, NoLocalRuns
from lifecycle.tracking.membership import Membership
from lifecycle.tracking.model_registry import ModelRegistry, ModelState
from lifecycle.tracking.owned_requests import OwnedRequests
from lifecycle.tracking.parents import Parents
from lifecycle.tracking.readers import Readers
from lifecycle.tracking.wait_for_end import wait_for_end
from lifecycle.types import OPERATOR_LIBRARY, CancelMode, ErrorType, Labels, OnDisconnect, RequestRecord, Role
from lifecycle.webhooks.config import WebhookConfig

if TYPE_CHECKING:
    from lifecycle.webhooks.deliverer import WebhookDeliverer


class Tracker:
    """Put the parts of a frontend together. Use `async with Tracker.open(…)`."""

    def __init__(
        self,
        settings: Settings,
        connections: Connections,
        metrics: Metrics,
        url: str,
        local_runs: LocalRuns | None = None,
    ) -> None:
        self.subscriptions = connections.subscriptions
        self.store = connections.store
        self.metrics = metrics
        self._connections = connections
        self._state = FrontendState(url)
        self._background = BackgroundTasks()
        self._models = ModelRegistry(self.store)
        self.readers = Readers(self.store, self._state, self._background.spawn)
        config = WebhookConfig.of(settings)
        self._webhooks = self._make_deliverer(config) if config else None
        self._parents = Parents(self.store, self.subscriptions, self._background.spawn)
        self.owned = OwnedRequests(
            self.store,
            metrics,
            self._state,
            self.readers,
            self._background.spawn,
            self._on_webhook,
            local_runs,
            self._parents.forget,
        )
        self._admissions = AdmissionControl(
            self.store,
            metrics,
            self._state,
            self.readers,
            self.owned,
            self._parents,
            Forecast(self.store, self._models.slots_of),
            config.background_url if config else "",
        )
        self._membership = Membership(
            self._state, connections, metrics, self._models, self.readers, self.owned, local_runs or NoLocalRuns()
        )

    def _make_deliverer(self, config: WebhookConfig) -> WebhookDeliverer:
        from lifecycle.webhooks.deliverer import WebhookDeliverer  # imported here: only webhooks need an HTTP client

        return WebhookDeliverer(self.store, self.metrics, config)

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        settings: Settings,
        metrics: Metrics,
        url: str,
        local_runs: LocalRuns | None = None,
        *,
        retry_for_secs: float = 10.0,
    ) -> AsyncIterator[Tracker]:
        """Join the cluster; leave it at the end. `url` is where this frontend is reached, empty without HTTP.

        `local_runs` runs the requests that are tracked in this process.

        Raises StoreUnavailable when Redis cannot be reached for `retry_for_secs`; StoreError when it forbids commands
        that a frontend needs; ConfigurationConflict when replicas
        disagree on a common setting; SettingsError when those about webhooks contradict each other.
        """
        async with Connections.open(settings) as connections:
            tracker = cls(settings, connections, metrics, url, local_runs)
            membership, background = tracker._membership, tracker._background
            await check_permissions(connections.store, Role.FRONTEND, retry_for_secs)
            await membership.join(retry_for_secs)
            await warn_of_eviction(connections.store)
            await tracker._models.refresh()
            async with asyncio.TaskGroup() as group:
                running = [
                    group.create_task(membership.run(), name="lease"),
                    group.create_task(membership.run_reaper(), name="reaper"),
                    group.create_task(connections.subscriptions.run(), name="subscriptions"),
                ]
                webhooks = tracker._webhooks
                if webhooks is not None:
                    running.append(group.create_task(webhooks.run(), name="webhooks"))
                try:
                    yield tracker
                finally:
                    with suppress(TimeoutError):
                        async with asyncio.timeout(settings.redis_timeout_secs * 2):
                            await membership.leave()
                    await tracker.readers.wait_until_quiet(settings.redis_timeout_secs)
                    await background.wait(settings.redis_timeout_secs)
                    await background.close()
                    if webhooks is not None:
                        await webhooks.drain(settings.redis_timeout_secs)
                    await tasks.end(running)

    @property
    def id(self) -> str:
        """Return the id of this frontend. Records name it with a suffix, as `<id>~1`, where its lease had expired."""
        return self._state.id

    @property
    def settings(self) -> Settings:
        """Return the settings that apply now: the common ones may change while the cluster runs."""
        return self.store.settings

    @property
    def lease(self) -> Lease:
        return self._membership.lease

    @property
    def draining(self) -> bool:
        """Return whether further requests are refused. Set it to begin."""
        return self._state.draining

    @draining.setter
    def draining(self, draining: bool) -> None:
        self._state.draining = draining

    def is_served(self, model: str, endpoint: str, needs: tuple[str, ...]) -> bool:
        """Return whether a call needs no further questions: the model is live and takes what the call needs."""
        return self._models.is_served(model, endpoint, needs)

    def drain_with(self, drain: Callable[[], None]) -> None:
        """Call `drain` when an operator has told this frontend to drain, which may have been before this call.

        Without it, the frontend then refuses further requests, and whoever runs it ends it.
        """
        self._state.on_drain = drain
        if self._state.draining:
            drain()

    async def check_ready(self) -> None:
        """Check that requests can be served. Raises StoreUnavailable; StoreForbidden names what Redis forbids."""
        try:
            await check_usable(self.store, Role.FRONTEND)
        except StoreForbidden:
            if not self.lease.forbidden:  # admission refuses calls as soon as the lease knows
                self.lease.look_again()
            raise
        if self.lease.is_forbidden:  # as of the last heartbeat
            self.lease.look_again()
            raise forbidden_error(Role.FRONTEND, self.lease.forbidden)

    async def model_state(self, model: str) -> ModelState:
        """Return whether a model is served now, was served before, or is unknown. Raises StoreUnavailable."""
        return await self._models.state_of(model)

    async def find_outage(self, model: str) -> Outage | None:
        """Return the error for a model whose living workers are all unhealthy; None when one is not.

        Raises StoreUnavailable.
        """
        return await self._models.find_outage(model)

    async def find_models(self, endpoint: str) -> list[str]:
        """Return the models that a call to this endpoint may mean when it names none. Raises StoreUnavailable."""
        return await self._models.find_models(endpoint)

    async def find_unsupported(self, model: str, endpoint: str, needs: Sequence[str]) -> Missing | None:
        """Return why no living worker of the model takes a call to this endpoint with these needs; None if one does.

        Raises StoreUnavailable.
        """
        return await self._models.find_unsupported(model, endpoint, needs)

    async def refresh_roster(self) -> Roster:
        """Return a roster of the cluster no older than this call. Raises StoreUnavailable."""
        return await self._models.refresh()

    async def admit(self, admit: AdmissionRequest) -> AdmittedRequest:
        """Queue and count a request.

        Raises Rejected, StoreUnavailable, or Fenced when the frontend's lease has expired; nothing is left behind then.
        """
        created_at, reader = await self._admissions.admit(admit)
        return self._give_to_client(admit.rid, created_at, reader, admit.labels, attached=False)

    async def track(self, admit: AdmissionRequest) -> tuple[AdmittedRequest, Start]:
        """Admit and start a request that runs in this process. The caller runs it as the start says.

        Raises as `admit` does.
        """
        start, reader = await self._admissions.track(admit)
        return self._give_to_client(admit.rid, start.created_at, reader, admit.labels, attached=False), start

    async def attach(self, rid: str, after: TokenId = START) -> AdmittedRequest | None:
        """Read a request, from its start or from behind a token, as the client that brought it does.

        Returns None when it is unknown. Raises StoreUnavailable, Fenced.
        """
        opened = await self.open_reader(rid, after)
        if opened is None:
            return None
        record, reader = opened
        return self._give_to_client(rid, record.created_at, reader, record.counted_as, attached=True)

    async def known_here(self, rid: str) -> bool:
        """Return whether this frontend owns or reads the request; waits while the request is being admitted here."""
        await self.owned.wait_for_admission(rid)
        return rid in self.readers.feeds

    def _give_to_client(
        self, rid: str, created_at: float, reader: TokenReader, labels: Labels, *, attached: bool
    ) -> AdmittedRequest:
        loop = reader.feed.loop
        detached: asyncio.Future[Disconnection | None] = loop.create_future()

        def on_closed(status: ConnectionStatus) -> None:
            closing = self._close_client(reader, status, labels, detached, admitting=not attached)
            self._background.spawn(closing, "connection")

        connection, stream = ConnectionMonitor(on_closed, loop).handles()
        return AdmittedRequest(rid, created_at, reader, connection, stream, attached, labels.endpoint, detached)

    async def _close_client(
        self,
        reader: TokenReader,
        status: ConnectionStatus,
        labels: Labels,
        detached: asyncio.Future[Disconnection | None],
        *,
        admitting: bool,
    ) -> None:
        """Detach a client. At most one disconnect is counted for each request."""
        disconnection = None
        try:
            disconnection = await self._detach(reader, status, admitting=admitting)
        finally:
            detached.set_result(disconnection)
        if disconnection is not None and disconnection.first:
            self.metrics.disconnects.labels(labels.model, labels.endpoint).inc()

    async def open_reader(self, rid: str, after: TokenId = START) -> tuple[RequestRecord, TokenReader] | None:
        """Read any request of the cluster, from behind any token. None when it is unknown or expired.

        Raises StoreUnavailable, Fenced.
        """
        return await self.readers.attach(rid, after)

    async def close_reader(self, reader: TokenReader, status: ConnectionStatus) -> None:
        """Close a reader from `open_reader`. Losing the last one may cancel the request."""
        await self._detach(reader, status, admitting=False)

    async def _detach(self, reader: TokenReader, status: ConnectionStatus, *, admitting: bool) -> Disconnection | None:
        disconnection = await self.readers.detach(reader, status, admitting=admitting)
        monitor = self.owned.get(reader.feed.rid)
        if disconnection is not None and monitor is not None and disconnection.what == "grace":
            monitor.watch_until(disconnection.grace_secs)
        return disconnection

    async def fail_slow_consumer(self, reader: TokenReader, message: str) -> None:
        """Fail the request of a reader whose client takes nothing; it continues if it has other readers or may do so.

        Raises StoreUnavailable.
        """
        feed = reader.feed
        if feed.rid not in self.owned or len(feed.readers) > 1 or feed.end is not None:
            return
        record = await self.store.read(feed.rid, retry_for_secs=self.settings.lease_secs)
        if record is not None and record.on_disconnect == OnDisconnect.CANCEL:
            await self.store.fail(feed.rid, ErrorType.SLOW_CONSUMER, message, retry_for_secs=self.settings.lease_secs)

    async def cancel(
        self, rid: str, mode: CancelMode, reason: str, wait_secs: float = 0.0, *, by: str = OPERATOR_LIBRARY
    ) -> Cancellation | None:
        """Cancel any request of the cluster, and wait up to `wait_secs` for its worker's confirmation.

        `by` says who cancels it, as the record's `cancelled_by` does; it comes through this frontend.
        Returns None when the request is unknown. Raises StoreUnavailable.
        """
        cancellation = await self.store.cancel(rid, mode, reason, by=by, via=self.id, retry_for_secs=1.0)
        if cancellation is None or cancellation.what == "terminal" or wait_secs <= 0:
            return cancellation
        record = await wait_for_end(self.store, self._connections.subscriptions, rid, wait_secs)
        if record is None:
            return cancellation
        return Cancellation("terminal" if record.status.terminal else "pending", record)

    def _on_webhook(self, record: RequestRecord) -> None:
        if self._webhooks is not None:
            self._webhooks.wake(record)

    async def announce(self) -> None:
        """Show the cluster at once that this frontend drains, unless its lease has expired."""
        await self._membership.announce()

    async def hand_over(self) -> None:
        """Leave the cluster: requests that may outlive their connection go on under another frontend, the rest end."""
        await self._membership.leave()

    def end_streams(self, error_type: ErrorType, message: str) -> None:
        """End every stream of this frontend with an error frame now."""
        self._membership.end_streams(error_type, message)
