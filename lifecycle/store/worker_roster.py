"""Read from the roster which workers live, and which models none of them can serve at the moment."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType
from typing import NamedTuple

import orjson

from lifecycle.store.results import Roster, RosterEntry
from lifecycle.types import NATIVE, SERVES, Endpoint, ErrorDetail, ReplicaState, Role

_KNOWN_WORKERS = 4096

EVERYTHING = "*"
"""The only element of a worker's announced `accepts` when its engine takes every parameter."""


NATIVE_ONLY = "native:"
"""Begins a need that no translation meets; the name of the parameter follows."""


COMPLETIONS = MappingProxyType({Endpoint.CHAT_COMPLETIONS.value: NATIVE, Endpoint.COMPLETIONS.value: NATIVE})
"""The endpoints of a worker that announces none."""


class Missing(NamedTuple):
    """Describe what a worker lacks for a call: the endpoint itself, or what a parameter asks for."""

    endpoint: str
    parameter: str | None = None

    def message(self, model: str) -> str:
        """Return the message for a call that no living worker of the model takes because of this."""
        if self.parameter is None:
            return f"The model {model!r} does not serve the endpoint {self.endpoint}; use another model or endpoint"
        return f"The model {model!r} does not support '{self.parameter}' with this value; omit it, or change the value"

    @property
    def detail(self) -> ErrorDetail:
        """Return the parts of the error beside its message."""
        code = "unsupported_endpoint" if self.parameter is None else "unsupported_parameter"
        return ErrorDetail(400, code=code, param=self.parameter)


class LivingWorker(NamedTuple):
    """A worker that holds a lease, as its last heartbeat describes it.

    `error` are the words of the last failure of its engine and `probe_in_secs` the time until the next probe of it;
    both belong to an unhealthy worker.
    """

    id: str
    state: str
    models: frozenset[str]
    accepts: frozenset[str]
    endpoints: Mapping[str, str]  # those that it offers: NATIVE or TRANSLATED
    error: str
    probe_in_secs: float
    started_at: float
    max_model_len: Mapping[str, int]  # by model, where the engine tells it
    concurrency: int = 0  # how many requests it runs at a time

    @property
    def offers(self) -> bool:
        """Return whether the worker offers its models to clients: it neither starts nor drains."""
        return self.state not in (ReplicaState.STARTING, ReplicaState.DRAINING)

    def missing(self, endpoint: str, needs: Iterable[str]) -> list[Missing]:
        """Return what of these the worker does not have.

        `needs` has names of gated parameters; one with the prefix NATIVE_ONLY is taken only by an engine that serves
        the endpoint without translation, and one with the prefix SERVES by an engine that serves that. An engine that
        is being loaded may take everything.
        """
        if self.state == ReplicaState.STARTING:
            return []
        served = self.endpoints.get(endpoint)
        if served is None:
            return [Missing(endpoint)]
        found = []
        for name in needs:
            if name.startswith(SERVES):
                served_instead = name.removeprefix(SERVES)
                if self.endpoints.get(served_instead) != NATIVE:
                    return [Missing(served_instead)]
                continue
            if name.startswith(NATIVE_ONLY):
                taken, name = served == NATIVE, name.removeprefix(NATIVE_ONLY)
            else:
                taken = EVERYTHING in self.accepts or name in self.accepts
            if not taken:
                found.append(Missing(endpoint, name))
        return found


class Outage(NamedTuple):
    """The error for requests for a model whose workers are all unhealthy."""

    message: str
    retry_after_secs: float  # until the next probe of one of them

    @property
    def detail(self) -> ErrorDetail:
        """Return the parts of the error beside its message."""
        return ErrorDetail(status=503, retry_after_secs=self.retry_after_secs)


def workers_of(roster: Roster, lease_secs: float) -> list[LivingWorker]:
    """Return the living workers. `lease_secs` tells from the rest of a lease how old the heartbeat is."""
    return [_worker_of(entry, lease_secs) for entry in roster.replicas if entry.role == Role.WORKER]


@lru_cache(maxsize=_KNOWN_WORKERS)  # of a long list, few have changed since it was read before
def _worker_of(entry: RosterEntry, lease_secs: float) -> LivingWorker:
    about = orjson.loads(entry.about)
    age_secs = max(0.0, lease_secs - entry.lease_expires_in_ms / 1000)
    return LivingWorker(
        id=entry.id,
        state=about.get("state", ReplicaState.READY),
        models=frozenset(about.get("models", ())),
        accepts=frozenset(about.get("accepts") or ()),
        endpoints=MappingProxyType(about.get("endpoints", COMPLETIONS)),
        error=about.get("error") or "",
        probe_in_secs=max(0.0, about.get("probe_in_secs", 0.0) - age_secs),
        started_at=about.get("started_at", 0.0),
        max_model_len=MappingProxyType(about.get("max_model_len") or {}),
        concurrency=about.get("concurrency") or 0,
    )


def find_unsupported(workers: Collection[LivingWorker], endpoint: str, needs: Sequence[str]) -> Missing | None:
    """Return why none of these workers takes a call to this endpoint with these needs.

    It is the first of what the worker lacks that lacks fewest; the endpoint itself counts more than any parameter.
    Return None when one worker has everything, or when there is no worker.
    """
    lacking: list[list[Missing]] = []
    for worker in workers:
        missing = worker.missing(endpoint, needs)
        if not missing:
            return None
        lacking.append(missing)
    fewest = min(lacking, key=lambda missing: (missing[0].parameter is None, len(missing)), default=None)
    return fewest[0] if fewest else None


def by_model(workers: Collection[LivingWorker]) -> dict[str, list[LivingWorker]]:
    """Return the workers of each model."""
    found: dict[str, list[LivingWorker]] = {}
    for worker in workers:
        for model in worker.models:
            found.setdefault(model, []).append(worker)
    return found


class Offered(NamedTuple):
    """Name what one worker takes of a model's requests; an engine that is being loaded may take everything."""

    accepts: frozenset[str]
    endpoints: frozenset[tuple[str, str]]
    is_healthy: bool


def offers_of(workers: Collection[LivingWorker]) -> dict[str, frozenset[Offered]]:
    """Return what is offered for each model."""
    return {
        model: frozenset(
            Offered(
                frozenset((EVERYTHING,)) if worker.state == ReplicaState.STARTING else worker.accepts,
                frozenset(() if worker.state == ReplicaState.STARTING else worker.endpoints.items()),
                worker.state != ReplicaState.UNHEALTHY,
            )
            for worker in serving
        )
        for model, serving in by_model(workers).items()
    }


def models_of(workers: Collection[LivingWorker]) -> dict[str, float]:
    """Return the models that workers offer, with the time at which the first of those workers started."""
    return {
        model: min(worker.started_at for worker in offering)
        for model, offering in by_model([worker for worker in workers if worker.offers]).items()
    }


def max_model_lens_of(workers: Collection[LivingWorker]) -> dict[str, int]:
    """Return the longest prompt and answer together, in tokens, of the models whose living workers tell one.

    Of several workers' lengths it is the smallest.
    """
    found: dict[str, int] = {}
    for worker in workers:
        for model, length in worker.max_model_len.items():
            found[model] = min(found.get(model, length), length)
    return found


def slots_of(workers: Collection[LivingWorker]) -> dict[str, int]:
    """Return how many requests for each model the workers that are ready can run at a time."""
    return {
        model: sum(worker.concurrency for worker in serving if worker.state == ReplicaState.READY)
        for model, serving in by_model(workers).items()
    }


def outage_of(workers: Collection[LivingWorker]) -> Outage | None:
    """Return the error when every one of these workers is unhealthy; None when one is not, or there is none."""
    if not workers or any(worker.state != ReplicaState.UNHEALTHY for worker in workers):
        return None
    soonest = min(workers, key=lambda worker: worker.probe_in_secs)
    return Outage(soonest.error or "The model's workers cannot serve at the moment", soonest.probe_in_secs)
