"""Who may call: keys, kept as hashes, with the name and the role each stands for.

`LIFECYCLE_API_KEYS` is the path of a file, or the lines themselves: one key a line, `name:role:inflight-limit:sha256`.
The limit may be empty; `#` begins a comment; lines that stand in the setting itself may be parted by commas.
A key has 256 random bits, so one round of SHA-256 keeps it.
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

log = logging.getLogger(__name__)

MOST_KEYS = 1000  # each call is compared with every key
MOST_INFLIGHT = 10_000  # each of them is looked at before a call is refused
_PREFIX = "lc-"
_LONGEST_KEY = 512
_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_LINE = re.compile(r"(?P<name>[^:]+):(?P<role>[^:]+):(?P<limit>\d*):(?P<digest>[0-9a-f]{64})")
_SETTING = environment_name("api_keys")


class KeyRole(StrEnum):
    """A client sees and ends its own requests; an operator everybody's, and the cluster's inside."""

    CLIENT = "client"
    OPERATOR = "operator"


@dataclass(frozen=True, slots=True)
class Caller:
    """On whose behalf a call is served. Without authentication that is nobody in particular, who may do everything."""

    name: str = ""
    role: KeyRole = KeyRole.OPERATOR
    inflight_limit: int = 0  # 0: none

    @property
    def owner(self) -> str:
        """Whose requests this caller may see; '' for everybody's."""
        return self.name if self.role is KeyRole.CLIENT else ""

    def may_see(self, owner: str | None) -> bool:
        return self.role is KeyRole.OPERATOR or owner == self.name


ANYBODY = Caller()


@dataclass(frozen=True, slots=True)
class ApiKey:
    caller: Caller
    digest: bytes = field(repr=False)

    @property
    def line(self) -> str:
        limit = self.caller.inflight_limit or ""
        return f"{self.caller.name}:{self.caller.role}:{limit}:{self.digest.hex()}"


def new_key(name: str, role: KeyRole, inflight_limit: int = 0) -> tuple[str, ApiKey]:
    """A key, to be shown once, and what is kept of it. Raises SettingsError."""
    key = _PREFIX + secrets.token_urlsafe(32)
    kept = ApiKey(Caller(name, role, inflight_limit), _digest(key))
    return key, parse_line(kept.line)


def parse_line(line: str) -> ApiKey:
    """Raises SettingsError."""
    match = _LINE.fullmatch(line)
    if match is None:
        raise SettingsError("a key is name:role:inflight-limit:sha256, as `lifecycle keys new` prints it")
    if not _NAME.fullmatch(match["name"]):
        raise SettingsError("the name of a key is 1 to 64 of A-Z a-z 0-9 . _ -")
    if match["role"] not in tuple(KeyRole):
        raise SettingsError(f"the role of a key is {' or '.join(KeyRole)}")
    limit = int(match["limit"] or 0)
    if match["limit"] and not 1 <= limit <= MOST_INFLIGHT:
        raise SettingsError(f"the inflight limit of a key is a whole number from 1 to {MOST_INFLIGHT}, or nothing")
    return ApiKey(Caller(match["name"], KeyRole(match["role"]), limit), bytes.fromhex(match["digest"]))


def parse_keys(text: str) -> tuple[ApiKey, ...]:
    """Raises SettingsError with the number of the line that is wrong, never with its text."""
    keys: list[ApiKey] = []
    for number, line in enumerate(text.splitlines(), 1):
        line = line.partition("#")[0].strip()
        if line:
            try:
                keys.append(parse_line(line))
            except SettingsError as wrong:
                raise SettingsError(f"{_SETTING}, line {number}: {wrong}") from None
    if not 0 < len(keys) <= MOST_KEYS:
        raise SettingsError(f"{_SETTING}: {len(keys) or 'no'} keys in it, 1 to {MOST_KEYS} are possible")
    callers = {key.caller.name: key.caller for key in keys}
    for key in keys:  # two keys of one name are how a key is replaced
        if callers[key.caller.name] != key.caller:
            raise SettingsError(f"{_SETTING}: the keys of {key.caller.name!r} differ in role or limit")
    return tuple(keys)


class Keyring:
    """The keys of one process. A file is read again when it changes; a wrong one is not taken."""

    def __init__(self, source: str) -> None:
        """Raises SettingsError."""
        self._file = None if ":" in source else Path(source)
        self._seen = _stamp(self._file)
        self.keys = parse_keys(_read(self._file) if self._file else source.replace(",", "\n"))

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: Settings) -> AsyncIterator[Keyring | None]:
        """None without authentication. A file that changes is taken as long as it is open. Raises SettingsError."""
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
        """Takes equally long whichever key it is, and whether it is one."""
        digest = _digest(presented[:_LONGEST_KEY])
        found = None
        for key in self.keys:
            if hmac.compare_digest(key.digest, digest):
                found = key
        return found

    def named(self, name: str) -> list[ApiKey]:
        return [key for key in self.keys if key.caller.name == name]

    async def _watch(self, every_secs: float) -> None:
        while True:
            await asyncio.sleep(every_secs)
            await asyncio.to_thread(self.refresh)

    def refresh(self) -> None:
        stamp = _stamp(self._file)
        if self._file is None or stamp == self._seen:
            return
        self._seen = stamp
        try:
            self.keys = parse_keys(_read(self._file))
        except SettingsError as wrong:
            log.error("the keys stay as they were: %s", wrong)
        else:
            log.info("%d keys were read again", len(self.keys))


def check_access(settings: Settings, host: str) -> None:
    """Before anything is started: the keys must be in order, and without keys nobody from elsewhere may come.

    Raises SettingsError. Whoever reaches an open frontend can read and cancel everybody's requests.
    """
    if settings.api_keys:
        Keyring(settings.api_keys)
    elif not settings.allow_anonymous and not _is_loopback(host):
        raise SettingsError(
            f"--host {host} is reachable from elsewhere and there are no keys: set {_SETTING} (`lifecycle keys new`), "
            f"or {environment_name('allow_anonymous')}=true if something in front of it lets nobody in who may not"
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
        return file.read_text()
    except (OSError, UnicodeDecodeError) as failure:
        reason = failure.strerror if isinstance(failure, OSError) else "it is no text"
        raise SettingsError(f"{_SETTING}: {file} cannot be read: {reason}") from None


def _stamp(file: Path | None) -> tuple[int, int, int] | None:
    """Changes when the file does, be it written or replaced."""
    try:
        about = os.stat(file) if file is not None else None
    except OSError:
        return None
    return (about.st_ino, about.st_size, about.st_mtime_ns) if about else None
