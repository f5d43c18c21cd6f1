"""Load the API keys, which are kept as hashes, and find the caller of a key.

`LIFECYCLE_API_KEYS` is the path of a file, or the lines themselves: one key a line, `name:role:inflight-limit:sha256`.
The limit may be empty; `#` begins a comment; lines in the setting itself may be separated by commas. An API key has
256 random bits, so a single round of SHA-256 is a safe hash of it.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ipaddress
import logging
import os
import re
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from lifecycle.aio import tasks
from lifecycle.settings import Settings, SettingsError, environment_name
from lifecycle.types import ANONYMOUS

log = logging.getLogger(__name__)

MOST_KEYS = 1000  # each call is compared with every key
MOST_INFLIGHT = 10_000  # before a call is refused, each of the name's requests is checked
_PREFIX = "lc-"
_MAX_KEY_CHARS = 512
_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_LINE = re.compile(r"(?P<name>[^:]+):(?P<role>[^:]+):(?P<limit>\d*):(?P<digest>[0-9a-f]{64})")
_SETTING = environment_name("api_keys")


class KeyRole(StrEnum):
    """Name the rights of a key: a client sees and cancels its own requests, an operator all of them and the cluster."""

    CLIENT = "client"
    OPERATOR = "operator"


@dataclass(frozen=True, slots=True)
class Caller:
    """Describe the user of an API key. Without authentication every call has the same caller, with all rights."""

    name: str = ""
    role: KeyRole = KeyRole.OPERATOR
    inflight_limit: int = 0  # 0: unlimited

    @property
    def owner(self) -> str:
        """Return the owner whose requests this caller may see; '' for all owners."""
        return self.name if self.role is KeyRole.CLIENT else ""

    @property
    def canceller(self) -> str:
        """Return what a record's `cancelled_by` says when this caller cancels a request."""
        return f"{'owner' if self.role is KeyRole.CLIENT else 'operator'}:{self.name}" if self.name else ANONYMOUS

    def visible_owner(self, wanted: str) -> str | None:
        """Return the owner whose requests a query for those of `wanted` ('' for any) finds.

        It is '' for all owners, and None when this caller may not see those of `wanted`.
        """
        if not self.owner:
            return wanted
        return self.owner if wanted in ("", self.owner) else None

    def may_see(self, owner: str | None) -> bool:
        """Return whether this caller may see a request of this owner."""
        return self.role is KeyRole.OPERATOR or owner == self.name


ANYBODY = Caller()


@dataclass(frozen=True, slots=True)
class ApiKey:
    """Hold what is stored of an API key: its caller and its SHA-256."""

    caller: Caller
    digest: bytes = field(repr=False)

    @property
    def line(self) -> str:
        """Return the key's line for `LIFECYCLE_API_KEYS`."""
        limit = self.caller.inflight_limit or ""
        return f"{self.caller.name}:{self.caller.role}:{limit}:{self.digest.hex()}"


def new_key(name: str, role: KeyRole, inflight_limit: int = 0) -> tuple[str, ApiKey]:
    """Return a new API key, and what is stored of it. Raises SettingsError for an invalid name or limit."""
    key = _PREFIX + secrets.token_urlsafe(32)
    kept = ApiKey(Caller(name, role, inflight_limit), _digest(key))
    return key, parse_line(kept.line)


def parse_line(line: str) -> ApiKey:
    """Parse `name:role:inflight-limit:sha256`. Raises SettingsError."""
    match = _LINE.fullmatch(line)
    if match is None:
        raise SettingsError("an API key must be name:role:inflight-limit:sha256, as `lifecycle keys new` prints it")
    if not _NAME.fullmatch(match["name"]):
        raise SettingsError("the name of an API key must be 1 to 64 characters of A-Z a-z 0-9 . _ -")
    if match["role"] not in tuple(KeyRole):
        raise SettingsError(f"the role of an API key must be {' or '.join(KeyRole)}")
    limit = int(match["limit"] or 0)
    if match["limit"] and not 1 <= limit <= MOST_INFLIGHT:
        raise SettingsError(f"the inflight limit of an API key must be an integer from 1 to {MOST_INFLIGHT}, or empty")
    return ApiKey(Caller(match["name"], KeyRole(match["role"]), limit), bytes.fromhex(match["digest"]))


def parse_keys(text: str) -> tuple[ApiKey, ...]:
    """Parse the lines of a key file. Raises SettingsError with the number of the invalid line, never with its text."""
    keys: list[ApiKey] = []
    for number, line in enumerate(text.splitlines(), 1):
        line = line.partition("#")[0].strip()
        if line:
            try:
                keys.append(parse_line(line))
            except SettingsError as wrong:
                raise SettingsError(f"{_SETTING}, line {number}: {wrong}") from None
    if not 0 < len(keys) <= MOST_KEYS:
        raise SettingsError(f"{_SETTING}: it contains {len(keys) or 'no'} keys; it must contain 1 to {MOST_KEYS}")
    callers = {key.caller.name: key.caller for key in keys}
    for key in keys:  # two keys may share a name while one replaces the other
        if callers[key.caller.name] != key.caller:
            raise SettingsError(
                f"{_SETTING}: the keys of {key.caller.name!r} differ in role or limit; give them the same"
            )
    return tuple(keys)


class Keyring:
    """Hold the API keys of this process. A changed file is loaded again; an invalid one is logged and ignored."""

    def __init__(self, setting: str) -> None:
        """Load the keys from the file that `setting` names, or from its own lines. Raises SettingsError."""
        self._file = None if ":" in setting else Path(setting)
        self._loaded = _fingerprint(self._file)
        self.keys = parse_keys(_read(self._file) if self._file else setting.replace(",", "\n"))

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: Settings) -> AsyncIterator[Keyring | None]:
        """Yield the keyring, reloaded whenever its file changes; None when no keys are set. Raises SettingsError."""
        if not settings.api_keys:
            yield None
            return
        keyring = cls(settings.api_keys)
        watch = asyncio.create_task(keyring._watch(settings.heartbeat_secs), name="keys")
        try:
            yield keyring
        finally:
            await tasks.end((watch,))

    def find(self, presented: str) -> ApiKey | None:
        """Return the stored key that matches, else None. Takes the same time for every key, also for an unknown one."""
        digest = _digest(presented[:_MAX_KEY_CHARS])
        found = None
        for key in self.keys:
            if hmac.compare_digest(key.digest, digest):
                found = key
        return found

    def named(self, name: str) -> list[ApiKey]:
        """Return the keys of one name: two while one replaces the other."""
        return [key for key in self.keys if key.caller.name == name]

    async def _watch(self, every_secs: float) -> None:
        while True:
            await asyncio.sleep(every_secs)
            await asyncio.to_thread(self.refresh)

    def refresh(self) -> None:
        """Load the file again if it has changed. An invalid file is logged, and the keys stay unchanged."""
        fingerprint = _fingerprint(self._file)
        if self._file is None or fingerprint == self._loaded:
            return
        self._loaded = fingerprint
        try:
            self.keys = parse_keys(_read(self._file))
        except SettingsError as wrong:
            log.error("the API keys were not reloaded and stay unchanged: %s", wrong)
        else:
            log.info("reloaded %d API keys", len(self.keys))


def check_access(settings: Settings, host: str) -> None:
    """Check the API keys before a frontend starts; without keys it may listen on loopback only.

    Otherwise anybody on the network could read and cancel all requests. Raises SettingsError.
    """
    if settings.api_keys:
        Keyring(settings.api_keys)
    elif not settings.allow_anonymous and not _is_loopback(host):
        raise SettingsError(
            f"--host {host} is reachable from other hosts and there are no API keys: set {_SETTING} "
            f"(see `lifecycle keys new`), or {environment_name('allow_anonymous')}=true if a proxy checks the callers"
        )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


def _read(file: Path) -> str:
    try:
        return file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as failure:
        reason = failure.strerror if isinstance(failure, OSError) else "it is not UTF-8 text"
        raise SettingsError(f"{_SETTING}: {file} cannot be read: {reason}") from None


def _fingerprint(file: Path | None) -> tuple[int, int, int] | None:
    """Return a value that changes when the file is written or replaced; None without a file."""
    try:
        about = os.stat(file) if file is not None else None
    except OSError:
        return None
    return (about.st_ino, about.st_size, about.st_mtime_ns) if about else None
