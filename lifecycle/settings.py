"""The settings: `LIFECYCLE_<NAME>` in the environment, or `--<name>` as a flag. Names end with the unit."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, Generic, Literal, Self, TypeVar

from pydantic import AliasChoices, Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from lifecycle.errors import InvalidSetting
from lifecycle.header_selection import NOTHING, HeaderSelection
from lifecycle.ids import ENDPOINT, MODEL_RULE, is_model_name
from lifecycle.redis_url import Kind, kind_of
from lifecycle.site_names import parse_hosts, parse_origins
from lifecycle.types import MOST_QUEUED, OnDisconnect

PREFIX = "LIFECYCLE_"
CLUSTER_SHARDS = 16
AUTO = "auto"
"""The `concurrency` of a worker that adapts it."""
_BACKEND_TIMEOUT = "backend_stream_timeout_secs"
_BACKEND_TIMEOUT_ALIAS = "DYN_HTTP_BACKEND_STREAM_TIMEOUT_SECS"

_NOT_TRIED = "default_factory_not_called"  # a default that depends on settings of which one is wrong
_SECRET_WORDS = ("KEY", "SECRET", "WEBHOOK_URL")  # in the names of settings whose values are not shown

Seconds = Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)]
OptionalSeconds = Annotated[float, Field(ge=0, le=30 * 86_400, allow_inf_nan=False)]


T = TypeVar("T")


class SettingsError(InvalidSetting):
    """Raised when a setting is out of range or contradicts another. The message is one line and names it."""


def check_model_names(given: Iterable[str]) -> None:
    """Raise SettingsError for the first value of `--model` that no call could name."""
    for model in given:
        if not is_model_name(model):
            raise SettingsError(f"--model {model!r:.80}: pass the model as clients request it, {MODEL_RULE}")


def parse_backend_timeout(text: str | int | float | None) -> int:
    """Return the seconds, or 0 for off. An unset value and anything but a whole number are off, and not an error."""
    digits = str(text).strip() if text is not None else ""
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) <= 9 else 0


def _default_shards(validated: dict[str, Any]) -> int:
    return CLUSTER_SHARDS if kind_of(validated.get("redis_url", "")) is Kind.CLUSTER else 1


class Settings(BaseSettings):
    """The settings of one process. Those under "common" must be the same on every replica of a cluster."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="ignore", frozen=True, env_ignore_empty=True)

    # Redis
    redis_url: str = Field(
        "redis://127.0.0.1:6379/0",
        description="URL: redis://, rediss://, unix://, redis+sentinel://, redis+cluster://",
    )
    redis_password_file: str = Field(
        "", description="file whose first line is the password of Redis; read again at each connect"
    )
    redis_sentinel_password_file: str = Field(
        "", description="file whose first line is the Sentinels' own password; read again at each connect"
    )
    redis_timeout_secs: Seconds = Field(2.0, description="longest wait for the reply of one Redis command")
    wait_replicas: int = Field(
        0, ge=0, le=100, description="replicas of Redis that must have an admission, start, cancel or end; 0 is off"
    )
    wait_timeout_ms: int = Field(
        100, ge=1, le=60_000, description="longest wait for these replicas, after which a write stands without them"
    )

    # common to all replicas of a cluster
    namespace: str = Field("lc", pattern=r"^[A-Za-z0-9._-]{1,32}$", description="prefix of all Redis keys and channels")
    shards: int = Field(
        default_factory=_default_shards,
        ge=1,
        le=1024,
        description="hash tags that requests are spread over; 16 on a Redis Cluster",
    )
    heartbeat_secs: Seconds = Field(3.0, description="interval at which a replica renews its lease")
    lease_secs: Seconds = Field(12.0, description="time after its last heartbeat at which a replica expires")
    sweep_secs: Seconds = Field(3.0, description="interval at which one of the replicas runs the reaper")
    retention_secs: Annotated[float, Field(ge=0.1, le=30 * 86_400)] = Field(
        600.0, description="time for which an ended request can be read"
    )
    max_attempts: int = Field(3, ge=1, le=100, description="most failed attempts of one request")
    queue_limit: int = Field(
        10_000, ge=1, le=10_000_000, description="most queued requests of one owner for one model; more get a 503"
    )
    queue_bytes: int = Field(
        256 * 1024 * 1024,
        ge=1024,
        le=1_000_000_000_000,
        description="most bytes of the bodies of all queued requests; more get a 503",
    )

    # limits of a request
    backend_stream_timeout_secs: int = Field(
        0,
        validation_alias=AliasChoices(PREFIX + _BACKEND_TIMEOUT.upper(), _BACKEND_TIMEOUT_ALIAS, _BACKEND_TIMEOUT),
        description="inactivity after which the worker (1x) or the frontend (2x) fails it",
    )
    queue_timeout_secs: OptionalSeconds = Field(0.0, description="longest time in the queue; 0 is off")
    first_token_timeout_secs: OptionalSeconds = Field(
        0.0, description="longest time from admission to the first token; 0 is off"
    )
    deadline_secs: OptionalSeconds = Field(0.0, description="longest time from admission to end; 0 is off")
    on_disconnect: OnDisconnect = Field(
        OnDisconnect.CANCEL, description="effect on a request when its last reader disconnects"
    )
    disconnect_grace_secs: OptionalSeconds = Field(
        0.0, description="time for a disconnected client to return before the cancel"
    )
    idempotency_grace_secs: OptionalSeconds = Field(5.0, description="the same for a request with an idempotency key")
    stop_grace_secs: Annotated[float, Field(ge=0, le=3600)] = Field(
        5.0, description="time for an engine to stop before it is killed"
    )
    queue_without_workers: bool = Field(False, description="queue requests of a known model without a living worker")

    # admission; the same on all frontends
    owner_queue_tokens: int = Field(
        0,
        ge=0,
        le=MOST_QUEUED,
        description="most estimated tokens of one owner queued for one model; 0 is off",
    )
    owner_queue_bytes: int = Field(
        0, ge=0, le=MOST_QUEUED, description="most bytes of bodies of one owner queued for one model; 0 is off"
    )
    model_queue_limit: int = Field(
        0, ge=0, le=MOST_QUEUED, description="most queued requests of one model, of all owners; 0 is off"
    )
    model_queue_tokens: int = Field(
        0, ge=0, le=MOST_QUEUED, description="most estimated tokens queued for one model, of all owners; 0 is off"
    )
    model_queue_bytes: int = Field(
        0, ge=0, le=MOST_QUEUED, description="most bytes of bodies queued for one model, of all owners; 0 is off"
    )

    # frontend
    sse_keepalive_secs: Seconds = Field(15.0, description="interval of comments on a stream without events")
    slow_consumer_secs: Seconds = Field(
        60.0, description="time after which a client that reads nothing is disconnected"
    )
    headers_after_secs: Annotated[float, Field(ge=0, le=3600)] = Field(
        5.0, description="longest wait of a stream's status line for its first event; 0: no wait"
    )
    reader_buffer_bytes: int = Field(
        1024 * 1024, ge=16 * 1024, le=1 << 30, description="most memory of events kept for one reader"
    )
    max_readers: int = Field(
        10_000, ge=1, le=1_000_000, description="most open streams of one frontend; more get a 503"
    )
    cancel_wait_secs: Annotated[float, Field(ge=0, le=60)] = Field(
        5.0, description="longest wait of the cancel of a response for its worker's confirmation"
    )
    stored_bytes: int = Field(
        1 << 30, ge=0, le=1_000_000_000_000, description="most memory of the kept responses of one owner; 0 is no limit"
    )
    max_body_bytes: int = Field(
        4 * 1024 * 1024, ge=1024, le=1 << 30, description="largest request body; a larger one gets a 413"
    )
    head_timeout_secs: Seconds = Field(30.0, description="time for a connection to send the head of a call")
    body_timeout_secs: Seconds = Field(
        60.0, description="time for the body of a call, and one second more for each 64 KiB received"
    )
    request_id_header: bool = Field(True, description="take a client's X-Request-Id for the request's id")
    forward_headers: str = Field(
        "x-session-id, x-session-affinity, x-data-parallel-rank, x-vllm-*",
        description="headers for the engine",
    )
    api_keys: str = Field("", repr=False, description="file of API keys, or its lines; empty is no authentication")
    allow_anonymous: bool = Field(
        False, description="without API keys, allow any address, any Host, and calls of other sites' pages"
    )
    allowed_hosts: str = Field("", description="names besides localhost that a Host may be without API keys")
    cors_origins: str = Field("", description="origins whose pages may call, such as https://app.example; * is all")
    public_metrics: bool = Field(False, description="serve /metrics to callers without an API key too")
    adopt_client_timeout: bool = Field(
        False, description="take the timeout that OpenAI's and Anthropic's SDKs send as the deadline, if it is shorter"
    )
    refuse_hopeless: bool = Field(
        False, description="refuse a request at once whose deadline would pass in the queue by the estimate"
    )
    session_secs: Seconds = Field(43_200.0, description="duration of a log-in to the dashboard")
    drain_timeout_secs: Annotated[float, Field(ge=0, le=86_400)] = Field(
        30.0, description="time for requests to finish when a replica is stopped"
    )

    # webhooks
    webhook_url: str = Field(
        "", repr=False, description="URL that gets an event when a background response has ended; empty is off"
    )
    webhook_hosts: str = Field("", description="hosts that a call may name in X-Webhook-Url; empty refuses the header")
    webhook_secret: str = Field("", repr=False, description="secrets that sign webhooks: whsec_…, separated by spaces")
    webhook_private_addresses: bool = Field(
        False, description="allow webhooks to http:// and to addresses that are not public"
    )
    webhook_attempts: int = Field(12, ge=1, le=100, description="most attempts to deliver one webhook within a day")
    webhook_retry_secs: Annotated[float, Field(ge=0.05, le=3600)] = Field(
        5.0, description="pause after the first failed attempt; each further one is three times as long"
    )
    webhook_timeout_secs: Annotated[float, Field(ge=0.1, le=60)] = Field(
        10.0, description="longest time for one attempt to deliver a webhook"
    )

    # worker
    preempt: bool = Field(
        False,
        description="let a request of better priority take the slot of one whose engine can resume it",
    )
    forward_priority: bool = Field(False, description="give the engine the priority of a request, in its body")
    concurrency: int | Literal["auto"] = Field(
        64, description="most requests that one worker runs at a time: 1 to 100,000, or auto to adapt it"
    )
    concurrency_min: int = Field(1, ge=1, le=100_000, description="fewest slots of a worker whose concurrency is auto")
    concurrency_max: int = Field(256, ge=1, le=100_000, description="most slots of a worker whose concurrency is auto")
    kill_grace_secs: Seconds = Field(
        2.0, description="time after which a killed engine that still runs is reported as stuck"
    )
    blocked_loop_secs: OptionalSeconds = Field(
        60.0, description="time for which a worker keeps its lease while its loop is blocked"
    )
    max_output_bytes: int = Field(
        64 * 1024 * 1024, ge=1024, le=256 * 1024 * 1024, description="largest answer; one that grows past it fails"
    )
    openai_base_url: str = Field("", description="upstream of the openai engine, such as http://127.0.0.1:8001/v1")
    openai_api_key: str = Field("", repr=False, description="API key for the upstream of the openai engine")
    echo_tokens_per_sec: Annotated[float, Field(ge=0, le=1e6)] = Field(
        20.0, description="rate of the echo engine; 0 is without limit"
    )

    # applications that use the library
    endpoint: str = Field(
        "app", pattern=f"^{ENDPOINT.pattern}$", description="endpoint of the requests that an application tracks"
    )

    # every process
    log_level: str = Field("info", pattern=r"^(debug|info|warning|error)$", description="lowest level that is logged")

    @field_validator(_BACKEND_TIMEOUT, mode="before")
    @classmethod
    def _malformed_is_off(cls, value: Any) -> int:
        return parse_backend_timeout(value)

    @field_validator("concurrency", mode="before")
    @classmethod
    def _is_number_or_auto(cls, value: Any) -> Any:
        text = str(value).strip()
        if text == AUTO:
            return AUTO
        if isinstance(value, bool) or not (text.isascii() and text.isdigit()) or not 1 <= int(text[:9]) <= 100_000:
            raise ValueError("must be a whole number from 1 to 100000, or auto")
        return int(text)

    @field_validator("forward_headers")
    @classmethod
    def _names_headers(cls, value: str) -> str:
        HeaderSelection.parse(value)
        return value.strip() or NOTHING

    @field_validator("allowed_hosts")
    @classmethod
    def _names_hosts(cls, value: str) -> str:
        parse_hosts(value)
        return value

    @field_validator("cors_origins")
    @classmethod
    def _names_origins(cls, value: str) -> str:
        parse_origins(value)
        return value

    @model_validator(mode="after")
    def _relations(self) -> Self:
        if self.heartbeat_secs * 2 > self.lease_secs:
            raise ValueError(
                f"LIFECYCLE_HEARTBEAT_SECS={self.heartbeat_secs:g} must be at most half of "
                f"LIFECYCLE_LEASE_SECS={self.lease_secs:g}: lower the first or raise the second"
            )
        if self.concurrency_min > self.concurrency_max:
            raise ValueError(
                f"LIFECYCLE_CONCURRENCY_MIN={self.concurrency_min} must be at most "
                f"LIFECYCLE_CONCURRENCY_MAX={self.concurrency_max}: lower the first or raise the second"
            )
        if self.wait_replicas and self.wait_timeout_ms * 2 > self.redis_timeout_secs * 1000:
            raise ValueError(
                f"LIFECYCLE_WAIT_TIMEOUT_MS={self.wait_timeout_ms} must be at most half of "
                f"LIFECYCLE_REDIS_TIMEOUT_SECS={self.redis_timeout_secs:g}: lower the first or raise the second"
            )
        return self

    @property
    def is_auto(self) -> bool:
        """Return whether a worker adapts its concurrency."""
        return self.concurrency == AUTO

    @property
    def fixed_concurrency(self) -> int:
        """Return the concurrency of a worker that does not adapt it."""
        assert isinstance(self.concurrency, int)
        return self.concurrency

    @property
    def stored_bytes_of_shard(self) -> int:
        """Return how much kept content an owner may have in one shard, in bytes; 0 is no limit."""
        return -(-self.stored_bytes // self.shards)

    @property
    def transient_secs(self) -> float:
        """Return how long the events of a response that is not stored stay readable after its end.

        Its readers of that moment then have had the time of two slow clients to read it to its end.
        """
        return min(2 * self.slow_consumer_secs, self.retention_secs)

    @property
    def worker_inactivity_secs(self) -> float:
        """Return the inactivity after which a worker fails a request; 0 is off."""
        return float(self.backend_stream_timeout_secs)

    @property
    def frontend_inactivity_secs(self) -> float:
        """Return the inactivity after which a frontend fails a request; 0 is off.

        It is twice the worker's, so that the worker's own report comes first.
        """
        return 2.0 * self.backend_stream_timeout_secs


class PerSettings(Generic[T]):
    """Keep what follows from the settings until others apply: looking one up costs several times a usual attribute."""

    def __init__(self, derive: Callable[[Settings], T]) -> None:
        self._derive = derive
        self._kept: tuple[Settings, T] | None = None

    def of(self, settings: Settings) -> T:
        """Return what follows from these settings."""
        kept = self._kept
        if kept is None or kept[0] is not settings:
            kept = self._kept = settings, self._derive(settings)
        return kept[1]


def load(flags: Mapping[str, Any] | None = None) -> Settings:
    """Return the settings of flags and the environment; a flag takes precedence.

    Raises SettingsError with a message of one line that names every wrong setting.
    """
    given = {name: value for name, value in (flags or {}).items() if value is not None}
    try:
        return Settings(**given)
    except ValidationError as failure:
        wrong = [error for error in failure.errors() if error["type"] != _NOT_TRIED]
        raise SettingsError("; ".join(map(_explain, wrong))) from None


def _explain(error: Any) -> str:
    if not error["loc"]:
        return str(error["msg"]).removeprefix("Value error, ")
    name = str(error["loc"][0]).upper()
    name = name if name.startswith((PREFIX, "DYN_")) else PREFIX + name
    shown = "" if any(word in name for word in _SECRET_WORDS) else f"={error['input']!r}"
    return f"{name}{shown}: {str(error['msg']).removeprefix('Value error, ')}"


def environment_name(field: str) -> str:
    """Return the name of a setting's environment variable."""
    return PREFIX + field.upper()


def as_environment(settings: Settings) -> dict[str, str]:
    """Return the current environment with the settings that were given added, for a child process."""
    own = {
        environment_name(name): (value.value if isinstance(value, OnDisconnect) else str(value))
        for name, value in settings.model_dump(exclude_unset=True).items()
    }
    return {**os.environ, **own}
