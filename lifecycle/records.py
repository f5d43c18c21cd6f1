"""The typed results that the library returns, beside `RequestRecord`. Times are Unix seconds.

Each is made of the JSON that the HTTP API shows, so a client over HTTP returns the same as one over Redis.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from lifecycle.types import RequestRecord, Role


@dataclass(slots=True, frozen=True)
class Replica:
    """A living frontend or worker, as `GET /v1/replicas` shows it."""

    id: str
    role: Role
    host: str
    pid: int
    started_at: float
    lease_expires_in_ms: int
    state: str  # one of ReplicaState
    inflight: int
    models: tuple[str, ...]
    concurrency: int | None
    url: str | None
    error: str | None = None  # why a worker is unhealthy
    endpoints: Mapping[str, str] = field(default_factory=dict)  # of a worker: endpoint → NATIVE or TRANSLATED
    stuck: int = 0  # engines that did not end when killed; only for the metrics
    reasserting: tuple[int, ...] = ()  # shards that lost data and do not know again what it holds; only for the metrics
    counted: Mapping[str, int] = field(
        default_factory=dict
    )  # counters since its start, by name; only for the dashboard
    unreplicated: Mapping[str, int] = field(default_factory=dict)  # writes since its start; only for the metrics

    @classmethod
    def from_json(cls, shown: Mapping[str, Any]) -> Replica:
        """Return the replica of what `to_json` shows. Raises KeyError, TypeError or ValueError when it is malformed."""
        known = {f.name: shown[f.name] for f in fields(cls) if f.name in shown}
        return cls(**{**known, "role": Role(known["role"]), "models": tuple(known["models"])})

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object that the HTTP API shows. `error` and `endpoints` are only a worker's."""
        hidden = {"stuck", "reasserting", "counted", "unreplicated", "endpoints"}
        hidden |= {"error"} if self.error is None else set()
        shown = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in hidden}
        offered = {"endpoints": dict(self.endpoints)} if self.role is Role.WORKER else {}
        return shown | {"models": list(self.models)} | offered


@dataclass(slots=True, frozen=True)
class InflightGroup:
    """Count the inflight requests of one model, endpoint and request type."""

    model: str
    endpoint: str
    request_type: str
    queued: int
    running: int
    inflight: int


@dataclass(slots=True, frozen=True)
class InflightFrontend:
    """Count the inflight requests that one frontend or tracker owns. Its lease ends after `lease_expires_in_ms`."""

    id: str
    inflight: int
    lease_expires_in_ms: int


@dataclass(slots=True, frozen=True)
class Inflight:
    """Count the inflight requests of the whole cluster at `as_of`: `total` is `queued` and `running` together."""

    total: int
    queued: int
    running: int
    groups: tuple[InflightGroup, ...]
    frontends: tuple[InflightFrontend, ...]
    as_of: float

    def to_json(self) -> dict[str, Any]:
        """Return the body of `GET /v1/inflight`."""
        return {"object": "inflight", **asdict(self)}

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Inflight:
        """Return the counts of the body of `GET /v1/inflight`. Raises KeyError or TypeError when it is malformed."""
        return cls(
            total=body["total"],
            queued=body["queued"],
            running=body["running"],
            groups=tuple(InflightGroup(**group) for group in body["groups"]),
            frontends=tuple(InflightFrontend(**frontend) for frontend in body["frontends"]),
            as_of=body["as_of"],
        )


@dataclass(slots=True, frozen=True)
class QueueOwner:
    """One owner's part of a model's queue. `owner` is empty for requests without an API key.

    `estimated_wait_secs` is how long the last of its queued requests will wait if nobody else comes; None when
    nothing tells, as before the first request of the model has ended.
    """

    owner: str
    weight: float
    queued: int
    oldest_secs: float
    estimated_wait_secs: float | None


@dataclass(slots=True, frozen=True)
class ModelQueue:
    """The queue of one model: how many requests wait, for how long the oldest has, and how fast it is served.

    `drain_per_sec` is how many requests started each second, over the last minute.
    """

    model: str
    queued: int
    oldest_secs: float
    drain_per_sec: float
    owners: tuple[QueueOwner, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the object that `GET /v1/queue` lists."""
        return asdict(self)

    @classmethod
    def from_json(cls, shown: Mapping[str, Any]) -> ModelQueue:
        """Return the queue of what `to_json` shows. Raises KeyError or TypeError when it is malformed."""
        names = ("model", "queued", "oldest_secs", "drain_per_sec")
        return cls(**{name: shown[name] for name in names}, owners=tuple(QueueOwner(**o) for o in shown["owners"]))


@dataclass(slots=True, frozen=True)
class Cancelled:
    """Tell what a selector matched: how many requests, of how many the cancel was requested, and their records.

    A dry run cancels nothing. `has_more` says that further requests match, which one call did not reach.
    """

    matched: int
    requested: int
    dry_run: bool
    has_more: bool
    records: tuple[RequestRecord, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the body of the answer to `POST /v1/requests/cancel`."""
        counts = {name: getattr(self, name) for name in ("matched", "requested", "dry_run", "has_more")}
        return {"object": "list", "data": [record.to_json() for record in self.records], **counts}

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Cancelled:
        """Return the body of the answer to `POST /v1/requests/cancel`. Raises KeyError when it is malformed."""
        return cls(
            matched=body["matched"],
            requested=body["requested"],
            dry_run=body["dry_run"],
            has_more=body["has_more"],
            records=tuple(map(RequestRecord.from_json, body["data"])),
        )
