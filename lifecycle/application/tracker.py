"""The tracker of an application: it has its own HTTP, its own events, and perhaps no worker."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import orjson

from lifecycle.aio import tasks
from lifecycle.application.local_attempts import LocalAttempts
from lifecycle.application.run import Resumed, Run
from lifecycle.application.tracked_attempt import Source
from lifecycle.clients import arguments
from lifecycle.clients.backend import all_pages
from lifecycle.clients.over_redis import ClusterQueries
from lifecycle.errors import InvalidValue, NotFound, StoreError, Unavailable
from lifecycle.execution.engine import aclose
from lifecycle.formats.token_estimate import estimate_tokens
from lifecycle.ids import new_request_id
from lifecycle.records import Inflight, ModelQueue, Replica
from lifecycle.settings import Settings
from lifecycle.store.new_request import AdmissionRequest, QueuePlace
from lifecycle.store.worker_roster import Outage
from lifecycle.telemetry.metrics import Metrics
from lifecycle.tracking import tracker as tracking
from lifecycle.tracking.call_needs import needs_of
from lifecycle.tracking.public_errors import public_errors
from lifecycle.types import (
    FORWARDS,
    OPERATOR_LIBRARY,
    CancelMode,
    Labels,
    Limits,
    RequestRecord,
    RequestType,
)

_LEAVE_SECS = 5.0  # that the tracked runs have to end when the tracker leaves


class Tracker:
    """Track requests cluster-wide from one process. Use `async with Tracker.connect(…) as tracker`.

    It is listed among the replicas as a frontend without a URL. Use it from the event loop in which it was connected;
    any number of tasks may do so at once.
    """

    def __init__(self, core: tracking.Tracker, local: LocalAttempts) -> None:
        """Use `connect` instead, which calls this."""
        self._core = core
        self._local = local
        self._queries = ClusterQueries(core.store, core.subscriptions)

    @classmethod
    @asynccontextmanager
    async def connect(cls, **settings: Any) -> AsyncIterator[Tracker]:
        """Join the cluster for the time of an `async with`. Its lease, its reaper and its pushes run inside.

        `settings` are those of `LIFECYCLE_*` in lower case, and take precedence over the environment. `endpoint` (1 to
        64 characters a-z 0-9 _, by default `app`) names the requests that are tracked here.

        At the end tracked runs end at once, as by a disconnect; submitted ones follow their own `on_disconnect`.

        Raises InvalidSetting, before Redis is looked for where that is possible; Unavailable when Redis cannot be
        reached within ten seconds.
        """
        loaded = arguments.load_settings(settings)
        local, failure = LocalAttempts(), None
        with public_errors():
            async with tracking.Tracker.open(loaded, Metrics(), "", local) as core:
                tracker = cls(core, local)
                # The task group inside would wrap what the caller's block raises, so that comes after its end.
                try:
                    yield tracker
                except BaseException as raised:
                    failure = raised
                await tracker._end_tracked()
        if failure is not None:
            raise failure

    @property
    def id(self) -> str:
        """Return the replica id. Records name it with a suffix, as in `<id>~1`, where its lease had expired."""
        return self._core.id

    @property
    def settings(self) -> Settings:
        """Return the settings that apply now."""
        return self._core.settings

    @property
    def draining(self) -> bool:
        """Return whether further requests are refused with Unavailable. Set it to begin, before the process ends."""
        return self._core.draining

    @draining.setter
    def draining(self, draining: bool) -> None:
        self._core.draining = draining

    async def track(
        self,
        source: Source,
        *,
        model: str,
        id: str | None = None,
        owner: str = "",
        on_disconnect: str | None = None,
        deadline_secs: float | None = None,
        parent: str | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> Run:
        """Run a source here, and track it everywhere. It has started when this returns.

        `source` is an async generator of JSON values, or a function that takes the context and returns one; the
        context tells it of a stop (`is_stopped`, `await stopped()`). A kill cancels it at its next await. A reader that
        is slow holds it back after READER_BUFFER_BYTES. A source that could not be admitted is closed.

        `model` is the name that it is counted under, `id` the request's id (a new one for None), and `owner` whose it
        is. `on_disconnect`, by default that of the settings, is `cancel` or `continue`. `deadline_secs` ends it after
        that time. `labels` are at most 16 strings of 64 characters by names of as many.

        `parent` is the id of the request that started it. It ends with that: it is cancelled when its parent fails, is
        lost or is cancelled, and stopped when its parent is; a parent that completes ends nothing. With an `owner` the
        parent must be the same owner's. A request has at most 1,000 children inflight, and a tree 16 levels.

        If this process dies, the request ends as `worker_lost`.

        Raises Conflict when the id is in use, or the parent failed or is being cancelled; NotFound when the parent is
        unknown or another owner's; Overloaded when it has too many children; Unavailable when Redis is away or the
        tracker drains; InvalidValue when an argument is malformed.
        """
        try:
            arguments.source(source)
            asked = self._asked(
                Labels(arguments.model(model), self.settings.endpoint, RequestType.STREAM),
                "app-",
                id,
                owner,
                on_disconnect,
                deadline_secs,
                parent,
                labels,
            )
            await self._local.wait_until_ready()
            with public_errors(asked.rid):
                admitted, start = await self._core.track(asked)
        except BaseException:
            await aclose(source)
            raise
        return Run(self._core, admitted, self._local, self._local.run(asked.rid, model, start, source))

    async def submit(
        self,
        body: Mapping[str, Any],
        endpoint: str = "chat_completions",
        *,
        id: str | None = None,
        owner: str = "",
        on_disconnect: str | None = None,
        deadline_secs: float | None = None,
        parent: str | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> Run:
        """Queue a request for a worker of the body's `model`, and read its events.

        `body` is the JSON object of a call to `endpoint`, and the events are what the engine yields: a str is the text
        of choice 0, a dict is a chunk of that endpoint's format without its envelope. Its `priority` (an integer, 0 by
        default; a lower one starts first) orders the queue, and does not reach the engine. With `include_usage` in its
        `stream_options` those who read it over HTTP get a usage chunk. The other arguments are those of `track`.

        Raises NotFound when the model is unknown; Unavailable when no worker can serve it now, Redis is away, or the
        tracker drains; Overloaded when its queue is full; Conflict when the id is in use; InvalidValue when an argument
        is malformed, or no worker of the model takes calls to the endpoint with these parameters; and what `track`
        raises because of the parent.
        """
        body = arguments.body(body)
        model = arguments.model(body.get("model"))
        kind = RequestType.UNARY if endpoint in FORWARDS else RequestType.STREAM
        asked = self._asked(
            Labels(model, arguments.endpoint(endpoint), kind),
            "req-",
            id,
            owner,
            on_disconnect,
            deadline_secs,
            parent,
            labels,
        )
        content = {name: value for name, value in body.items() if name != "priority"}
        encoded, needs = orjson.dumps(content), needs_of(endpoint, content)
        place = QueuePlace(
            arguments.priority(body.get("priority")), estimate=estimate_tokens(endpoint, content, len(encoded))
        )
        with public_errors(asked.rid):
            await self._check_model(model, endpoint, needs)
            admitted = await self._core.admit(
                asked._replace(body=encoded, needs=needs, place=place, include_usage=arguments.include_usage(body))
            )
        return Run(self._core, admitted, self._local)

    def _asked(
        self,
        counted_as: Labels,
        prefix: str,
        rid: str | None,
        owner: str,
        on_disconnect: str | None,
        deadline_secs: float | None,
        parent: str | None,
        labels: Mapping[str, str] | None,
    ) -> AdmissionRequest:
        """Return what is admitted. Raises InvalidValue."""
        settings = self.settings
        limits = [secs for secs in (settings.deadline_secs, arguments.seconds("deadline_secs", deadline_secs)) if secs]
        return AdmissionRequest(
            rid=new_request_id(prefix) if rid is None else arguments.request_id(rid),
            labels=counted_as,
            body=b"",
            on_disconnect=settings.on_disconnect if on_disconnect is None else arguments.on_disconnect(on_disconnect),
            grace_secs=settings.disconnect_grace_secs,
            limits=Limits(
                queue_secs=settings.queue_timeout_secs,
                first_token_secs=settings.first_token_timeout_secs,
                deadline_secs=min(limits, default=0.0),
            ),
            owner=owner,
            parent="" if parent is None else arguments.request_id(parent),
            parent_owner=owner,
            own_labels=arguments.own_labels(labels),
        )

    async def _check_model(self, model: str, endpoint: str, needs: tuple[str, ...]) -> None:
        state = await self._core.model_state(model)
        if state == "unknown":
            raise NotFound(f"The model {model!r} does not exist")
        if state == "known" and not self.settings.queue_without_workers:
            raise Unavailable(f"No worker serves the model {model!r} at the moment; try again later")
        outage: Outage | None = await self._core.find_outage(model)
        if outage is not None:
            raise Unavailable(outage.message, max(1.0, outage.retry_after_secs))
        missing = await self._core.find_unsupported(model, endpoint, needs)
        if missing is not None:
            raise InvalidValue(missing.message(model), param=missing.parameter)

    async def resume(self, id: str, after: str | None = None) -> Resumed:
        """Read any request of the cluster, from its start or from behind the position `after`, live to its end.

        Iterating over the result yields (at, event). It counts as a reader, so that the request goes on for it.

        Raises NotFound, Unavailable; InvalidValue when the id or the position is malformed.
        """
        rid, position = arguments.request_id(id), arguments.position(after)
        with public_errors():
            admitted = await self._core.attach(rid, position)
        if admitted is None:
            raise NotFound(f"The request {rid!r} is unknown; its record may have expired")
        return Resumed(self._core, admitted, self._local)

    async def cancel(
        self,
        id: str,
        mode: str = "kill",
        reason: str = "",
        wait_secs: float = 0.0,
        *,
        by: str = OPERATOR_LIBRARY,
    ) -> RequestRecord:
        """Cancel any request of the cluster, and return its record. Cancelling an ended one changes nothing.

        `mode` is `kill`, which ends it now, or `stop`, which lets through what has been produced. `wait_secs` is how
        long to wait for the confirmation that its engine or source has ended; until then the status is not terminal.
        `by` says who cancels it, as the record's `cancelled_by`.

        Raises NotFound, Unavailable; InvalidValue when an argument is malformed.
        """
        rid, checked, why = arguments.request_id(id), arguments.cancel_mode(mode), arguments.reason(reason)
        return await self._queries.cancel(rid, checked, why, arguments.wait_secs(wait_secs), by=by, via=self.id)

    async def get(self, id: str) -> RequestRecord:
        """Return the record of any request of the cluster. Raises NotFound, Unavailable, InvalidValue."""
        return await self._queries.get(arguments.request_id(id))

    async def requests(
        self,
        status: str = "",
        model: str = "",
        endpoint: str = "",
        frontend: str = "",
        worker: str = "",
        owner: str = "",
    ) -> list[RequestRecord]:
        """Return all records that match every given field, newest first; `status` may also be `inflight`.

        Raises Unavailable, InvalidValue.
        """
        chosen = arguments.filter_of(status, model, endpoint, frontend, worker, owner)
        return await all_pages(self._queries, chosen)

    async def inflight(self, model: str = "") -> Inflight:
        """Count the inflight requests of the cluster, of one model or of all. Raises Unavailable."""
        return await self._queries.inflight(model)

    async def replicas(self) -> list[Replica]:
        """Return the replicas that hold a lease, this one included. Raises Unavailable."""
        return await self._queries.replicas()

    async def queue(self) -> list[ModelQueue]:
        """Return what waits, by model and owner, and for how long it will. Raises Unavailable."""
        return await self._queries.queue()

    async def _end_tracked(self) -> None:
        """End what is tracked here, as a disconnect of its clients."""
        running: Sequence[str] = self._local.running
        if not running:
            return
        with suppress(StoreError, TimeoutError):
            await tasks.in_batches(self._disconnect, running)
        await self._local.close(_LEAVE_SECS)

    async def _disconnect(self, rid: str) -> None:
        reason = "The client disconnected"
        await self._core.store.cancel(rid, CancelMode.KILL, reason, by="disconnect", via=self.id, retry_for_secs=1.0)
