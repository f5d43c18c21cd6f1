"""One API key, and its line in the file of keys.

A line is `name:role:inflight-limit:sha256`, and optional fields may follow, each as `:<name>=<value>`:
`weight`, `priority` (LOW:HIGH), `queue-limit`, `queue-tokens` and `queue-bytes`.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field

from lifecycle.fastapi.caller import NO_PRIORITY, Caller, KeyRole, PriorityRange
from lifecycle.queue_share import NO_SHARE, QueueShare
from lifecycle.settings import SettingsError
from lifecycle.types import MOST_PRIORITY, MOST_QUEUED

MOST_INFLIGHT = 10_000  # before a call is refused, each of the name's requests is checked
LEAST_WEIGHT, MOST_WEIGHT = 0.01, 1000.0
_PREFIX = "lc-"
_MAX_KEY_CHARS = 512
_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_LINE = re.compile(
    r"(?P<name>[^:]+):(?P<role>[^:]+):(?P<limit>\d*):(?P<digest>[0-9a-f]{64})(?P<fields>(?::[^:=]+=[^:=]*(?::[^:=]+)?)*)"
)
_FIELD = re.compile(r":([^:=]+)=([^:=]*(?::[^:=]+)?)(?=:|$)")
_RANGE = re.compile(r"([+-]?\d{1,10}):([+-]?\d{1,10})")
_WEIGHT = re.compile(r"\d{1,4}(?:\.\d{1,20})?")


@dataclass(frozen=True, slots=True)
class ApiKey:
    """Hold what is stored of an API key: its caller and its SHA-256."""

    caller: Caller
    digest: bytes = field(repr=False)

    @property
    def line(self) -> str:
        """Return the key's line for `LIFECYCLE_API_KEYS`. Fields that have their default are left out."""
        caller, plain = self.caller, Caller()
        fields = {
            "weight": f"{caller.weight:.6g}" if caller.weight != plain.weight else "",
            "priority": str(caller.priority) if caller.priority != plain.priority else "",
            "queue-limit": str(caller.queue_share.requests or ""),
            "queue-tokens": str(caller.queue_share.tokens or ""),
            "queue-bytes": str(caller.queue_share.body_bytes or ""),
        }
        added = "".join(f":{name}={value}" for name, value in fields.items() if value)
        return f"{caller.name}:{caller.role}:{caller.inflight_limit or ''}:{self.digest.hex()}{added}"


def new_key(
    name: str,
    role: KeyRole,
    inflight_limit: int = 0,
    weight: float = 1.0,
    priority: PriorityRange = NO_PRIORITY,
    queue_share: QueueShare = NO_SHARE,
) -> tuple[str, ApiKey]:
    """Return a new API key, and what is stored of it. Raises SettingsError for an invalid name, limit or weight."""
    key = _PREFIX + secrets.token_urlsafe(32)
    kept = ApiKey(Caller(name, role, inflight_limit, weight, priority, queue_share), digest_of(key))
    return key, parse_line(kept.line)


def digest_of(key: str) -> bytes:
    """Return the hash by which a presented key is found."""
    return hashlib.sha256(key[:_MAX_KEY_CHARS].encode("utf-8", "surrogateescape")).digest()


def parse_line(line: str) -> ApiKey:
    """Parse one line. Raises SettingsError, which shows no part of it that could be a key."""
    match = _LINE.fullmatch(line)
    if match is None:
        raise SettingsError(
            "an API key must be name:role:inflight-limit:sha256 and :field=value for each further field, "
            "as `lifecycle keys new` prints it"
        )
    if not _NAME.fullmatch(match["name"]):
        raise SettingsError("the name of an API key must be 1 to 64 characters of A-Z a-z 0-9 . _ -")
    if match["role"] not in tuple(KeyRole):
        raise SettingsError(f"the role of an API key must be {' or '.join(KeyRole)}")
    limit = int(match["limit"] or 0)
    if match["limit"] and not 1 <= limit <= MOST_INFLIGHT:
        raise SettingsError(f"the inflight limit of an API key must be an integer from 1 to {MOST_INFLIGHT}, or empty")
    given = _fields(match["fields"])
    caller = Caller(
        match["name"],
        KeyRole(match["role"]),
        limit,
        _weight(given.get("weight", "1")),
        parse_range(given.get("priority", "0:0")),
        QueueShare(*(_queued(name, given.get(name)) for name in ("queue-limit", "queue-tokens", "queue-bytes"))),
    )
    return ApiKey(caller, bytes.fromhex(match["digest"]))


_FIELDS = ("weight", "priority", "queue-limit", "queue-tokens", "queue-bytes")


def _fields(text: str) -> Mapping[str, str]:
    pairs = _FIELD.findall(text)
    given = dict(pairs)
    for name in given:
        if name not in _FIELDS:
            raise SettingsError(f"{name[:32]!r} is no field of an API key; it may have {', '.join(_FIELDS)}")
    if len(given) < len(pairs):
        raise SettingsError("an API key has a field twice; give each of them once")
    return given


def _weight(text: str) -> float:
    weight = float(text) if _WEIGHT.fullmatch(text) else 0.0
    if not LEAST_WEIGHT <= weight <= MOST_WEIGHT:
        raise SettingsError(
            f"the weight of an API key is {text[:32]!r}; it must be a number from {LEAST_WEIGHT:g} to {MOST_WEIGHT:g}"
        )
    return weight


def parse_range(text: str) -> PriorityRange:
    """Parse LOW:HIGH. Raises SettingsError."""
    match = _RANGE.fullmatch(text)
    found = PriorityRange(int(match[1]), int(match[2])) if match else PriorityRange(1, 0)
    if not -MOST_PRIORITY <= found.low <= found.high <= MOST_PRIORITY:
        raise SettingsError(
            f"the priority of an API key is {text[:32]!r}; it must be LOW:HIGH, "
            f"two integers from {-MOST_PRIORITY} to {MOST_PRIORITY} of which the first is not larger, such as -10:10"
        )
    return found


def _queued(name: str, text: str | None) -> int:
    if text is None:
        return 0
    number = int(text) if text.isascii() and text.isdigit() and len(text) <= 16 else 0
    if not 1 <= number <= MOST_QUEUED:
        raise SettingsError(f"the {name} of an API key is {text[:32]!r}; it must be an integer from 1 to {MOST_QUEUED}")
    return number
