"""Read from the roster which workers live, and which models none of them can serve at the moment."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

import orjson

from lifecycle.store.results import Roster
from lifecycle.types import ErrorDetail, ReplicaState, Role

EVERYTHING = "*"
"""The only element of a worker's announced `accepts` when its engine takes every parameter."""


class LivingWorker(NamedTuple):
    """A worker that holds a lease, as its last heartbeat describes it.

    `error` are the words of the last failure of its engine and `probe_in_secs` the time until the next probe of it;
    both belong to an unhealthy worker.
    """

    id: str
    state: str
    models: frozenset[str]
    accepts: frozenset[str]
    error: str
    probe_in_secs: float
    started_at: float
    max_model_len: dict[str, int]  # by model, where the engine tells it

    @property
    def offers(self) -> bool:
        """Return whether the worker offers its models to clients: it neither starts nor drains."""
        return self.state not in (ReplicaState.STARTING, ReplicaState.DRAINING)

    def missing(self, needs: Iterable[str]) -> list[str]:
        """Return those of these gated parameters that the engine does not accept.

        An engine that is being loaded may accept all of them.
        """
        if self.state == ReplicaState.STARTING or EVERYTHING in self.accepts:
            return []
        return [name for name in needs if name not in self.accepts]


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
    found = []
    for entry in roster.replicas:
        if entry.role != Role.WORKER:
            continue
        about = orjson.loads(entry.about)
        age_secs = max(0.0, lease_secs - entry.lease_expires_in_ms / 1000)
        found.append(
            LivingWorker(
                id=entry.id,
                state=about.get("state", ReplicaState.READY),
                models=frozenset(about.get("models", ())),
                accepts=frozenset(about.get("accepts") or ()),
                error=about.get("error") or "",
                probe_in_secs=max(0.0, about.get("probe_in_secs", 0.0) - age_secs),
                started_at=about.get("started_at", 0.0),
                max_model_len=about.get("max_model_len") or {},
            )
        )
    return found


def find_unsupported(workers: Collection[LivingWorker], needs: Sequence[str]) -> str | None:
    """Return a parameter for which none of these workers takes a call with these gated parameters.

    It is the first one that the worker lacks that lacks fewest. Return None when one worker accepts all of them, or
    when there is no worker.
    """
    fewest = min((worker.missing(needs) for worker in workers), key=len, default=[])
    return fewest[0] if fewest else None


def unsupported_message(model: str, parameter: str) -> str:
    """Return the message for a call that no living worker of the model takes because of this parameter."""
    return f"The model {model!r} does not support '{parameter}' with this value; omit it, or change the value"


def by_model(workers: Collection[LivingWorker]) -> dict[str, list[LivingWorker]]:
    """Return the workers of each model."""
    found: dict[str, list[LivingWorker]] = {}
    for worker in workers:
        for model in worker.models:
            found.setdefault(model, []).append(worker)
    return found


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


def outage_of(workers: Collection[LivingWorker]) -> Outage | None:
    """Return the error when every one of these workers is unhealthy; None when one is not, or there is none."""
    if not workers or any(worker.state != ReplicaState.UNHEALTHY for worker in workers):
        return None
    soonest = min(workers, key=lambda worker: worker.probe_in_secs)
    return Outage(soonest.error or "The model's workers cannot serve at the moment", soonest.probe_in_secs)
