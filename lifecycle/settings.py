"""Every setting, its default, range and unit: `LIFECYCLE_<NAME>` in the environment, `--<name>` as a flag.

`load()` raises `SettingsError` with one line that names the offending settings.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import AliasChoices, Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from lifecycle.redis_url import Kind, kind_of
from lifecycle.types import OnDisconnect

PREFIX = "LIFECYCLE_"
CLUSTER_SHARDS = 16
_BACKEND_TIMEOUT = "backend_stream_timeout_secs"
_BACKEND_TIMEOUT_ALIAS = "DYN_HTTP_BACKEND_STREAM_TIMEOUT_SECS"

Seconds = Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)]
OptionalSeconds = Annotated[float, Field(ge=0, le=30 * 86_400, allow_inf_nan=False)]


class SettingsError(Exception):
    """A setting is out of range or contradicts another; the message is one line and names it."""


def parse_backend_timeout(text: str | int | float | None) -> int:
    """Seconds, or 0 for off. Unset, 0 and anything but a whole number are off: here garbage is no error."""
    digits = str(text).strip() if text is not None else ""
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) <= 9 else 0


def _default_shards(validated: dict[str, Any]) -> int:
    return CLUSTER_SHARDS if kind_of(validated.get("redis_url", "")) is Kind.CLUSTER else 1


class Settings(BaseSettings):
    """One process's settings. Those under "common" must be the same on every replica of a cluster."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="ignore", frozen=True, env_ignore_empty=True)

    # Redis
    redis_url: str = Field(
        "redis://127.0.0.1:6379/0",
        description="redis://, rediss://, unix://, redis+sentinel://HOST:PORT,…/SERVICE, redis+cluster://HOST:PORT,…",
    )
    redis_timeout_secs: Seconds = Field(2.0, description="how long one Redis command may take")

    # common to all replicas of a cluster
    namespace: str = Field("lc", pattern=r"^[A-Za-z0-9._-]{1,32}$", description="prefix of every key and channel")
    shards: int = Field(
        default_factory=_default_shards,
        ge=1,
        le=1024,
        description="hash tags over which requests are spread; 1, or 16 on a Cluster",
    )
    heartbeat_secs: Seconds = Field(3.0, description="how often a replica renews its lease")
    lease_secs: Seconds = Field(12.0, description="how long a replica counts as alive after its last heartbeat")
    sweep_secs: Seconds = Field(3.0, description="how often each replica looks for dead replicas and overdue requests")
    retention_secs: Annotated[float, Field(ge=0.1, le=30 * 86_400)] = Field(
        600.0, description="how long a finished record and its token stream stay readable"
    )
    max_attempts: int = Field(3, ge=1, le=100, description="how often a request is tried that its worker can pass on")
    queue_limit: int = Field(10_000, ge=1, le=10_000_000, description="queued requests per model; above it 503")

    # what a request lives through
    backend_stream_timeout_secs: int = Field(
        0,
        validation_alias=AliasChoices(PREFIX + _BACKEND_TIMEOUT.upper(), _BACKEND_TIMEOUT_ALIAS, _BACKEND_TIMEOUT),
        description="silence after which a worker gives up (1x) and a frontend does (2x); 0 or garbage is off",
    )
    queue_timeout_secs: OptionalSeconds = Field(0.0, description="longest time in the queue; 0 is off")
    first_token_timeout_secs: OptionalSeconds = Field(0.0, description="longest wait for the first token; 0 is off")
    deadline_secs: OptionalSeconds = Field(0.0, description="longest time from admission to end; 0 is off")
    on_disconnect: OnDisconnect = Field(OnDisconnect.CANCEL, description="what a lost client does to its request")
    disconnect_grace_secs: OptionalSeconds = Field(0.0, description="how long a lost reader may take to come back")
    idempotency_grace_secs: OptionalSeconds = Field(
        5.0, description="the same for a request with an Idempotency-Key, whose client may be about to repeat its call"
    )
    stop_grace_secs: Annotated[float, Field(ge=0, le=3600)] = Field(
        5.0, description="how long an engine may take to stop before its worker ends it"
    )
    queue_without_workers: bool = Field(False, description="queue for a known model without a live worker")

    # frontend
    sse_keepalive_secs: Seconds = Field(15.0, description="how often a silent stream carries a comment")
    slow_consumer_secs: Seconds = Field(60.0, description="a socket that takes nothing for so long is closed")
    reader_buffer_tokens: int = Field(1024, ge=16, le=1_000_000, description="tokens held for one reader in memory")
    max_readers: int = Field(10_000, ge=1, le=1_000_000, description="open streams per frontend; above it 503")
    max_body_bytes: int = Field(4 * 1024 * 1024, ge=1024, le=1 << 30, description="largest request body; above it 413")
    api_keys: str = Field("", repr=False, description="a file of keys, or its lines; without: no authentication")
    allow_anonymous: bool = Field(False, description="listen on other addresses than loopback without keys")
    public_metrics: bool = Field(False, description="serve /metrics to callers without a key too")
    session_secs: Seconds = Field(43_200.0, description="how long a log-in to the dashboard lasts")
    drain_timeout_secs: Annotated[float, Field(ge=0, le=86_400)] = Field(
        30.0, description="how long a stopping replica lets its requests finish"
    )

    # worker
    concurrency: int = Field(64, ge=1, le=100_000, description="requests one worker runs at a time")
    kill_grace_secs: Seconds = Field(2.0, description="a killed engine still running after this is reported as stuck")
    openai_base_url: str = Field("", description="upstream of the openai engine, e.g. http://127.0.0.1:8001/v1")
    openai_api_key: str = Field("", repr=False, description="its key")
    echo_tokens_per_sec: Annotated[float, Field(ge=0, le=1e6)] = Field(
        20.0, description="pace of the echo engine; 0 is as fast as it goes"
    )

    # every process
    log_level: str = Field("info", pattern=r"^(debug|info|warning|error)$", description="of the process's log")

    @field_validator(_BACKEND_TIMEOUT, mode="before")
    @classmethod
    def _garbage_is_off(cls, value: Any) -> int:
        return parse_backend_timeout(value)

    @model_validator(mode="after")
    def _relations(self) -> Self:
        if self.heartbeat_secs * 2 > self.lease_secs:
            raise ValueError(
                f"LIFECYCLE_HEARTBEAT_SECS={self.heartbeat_secs:g} must be at most half of "
                f"LIFECYCLE_LEASE_SECS={self.lease_secs:g}"
            )
        return self

    @property
    def worker_inactivity_secs(self) -> float:
        """At 1x the worker gives up on a silent engine; 0 is off."""
        return float(self.backend_stream_timeout_secs)

    @property
    def frontend_inactivity_secs(self) -> float:
        """At 2x the frontend gives up on a silent worker, so that the worker's own report comes first."""
        return 2.0 * self.backend_stream_timeout_secs


def load(flags: Mapping[str, Any] | None = None) -> Settings:
    """Settings from flags (which win) and the environment. Raises SettingsError with one line."""
    given = {name: value for name, value in (flags or {}).items() if value is not None}
    try:
        return Settings(**given)
    except ValidationError as failure:
        raise SettingsError("; ".join(_explain(e) for e in failure.errors())) from None


def _explain(error: Any) -> str:
    if not error["loc"]:
        return str(error["msg"]).removeprefix("Value error, ")
    name = str(error["loc"][0]).upper()
    name = name if name.startswith((PREFIX, "DYN_")) else PREFIX + name
    shown = "" if "KEY" in name else f"={error['input']!r}"
    return f"{name}{shown}: {error['msg']}"


def environment_name(field: str) -> str:
    return PREFIX + field.upper()


def as_environment(settings: Settings) -> dict[str, str]:
    """The environment that gives a child process these settings, on top of the current one."""
    own = {
        environment_name(name): (value.value if isinstance(value, OnDisconnect) else str(value))
        for name, value in settings.model_dump().items()
    }
    return {**os.environ, **own}
