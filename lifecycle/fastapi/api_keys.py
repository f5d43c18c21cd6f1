"""Load the API keys, which are kept as hashes, and find the caller of a key.

`LIFECYCLE_API_KEYS` is the path of a file, or the lines themselves: one key a line, see `api_key.py`. `#` begins a
comment; lines in the setting itself may be separated by commas. An API key has 256 random bits, so a single round of
SHA-256 is a safe hash of it.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from lifecycle.aio import tasks
from lifecycle.fastapi.api_key import ApiKey, digest_of, parse_line
from lifecycle.settings import Settings, SettingsError, environment_name

log = logging.getLogger(__name__)

MOST_KEYS = 1000  # each call is compared with every key
_SETTING = environment_name("api_keys")


def parse_keys(text: str) -> tuple[ApiKey, ...]:
    """Parse the lines of a key file. Raises SettingsError with the number of the invalid line, never with a hash."""
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
                f"{_SETTING}: the keys of {key.caller.name!r} differ in role, limits, weight or priority; "
                f"give them the same"
            )
    names: dict[bytes, str] = {}
    for key in keys:
        name = names.setdefault(key.digest, key.caller.name)
        if name != key.caller.name:  # whose requests those of this key are would depend on the order of the lines
            raise SettingsError(f"{_SETTING}: {name!r} and {key.caller.name!r} have the same key; give each its own")
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
        digest = digest_of(presented)
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


def _read(file: Path) -> str:
    try:
        return file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as failure:
        reason = failure.strerror if isinstance(failure, OSError) else "it is not UTF-8 text"
        raise SettingsError(f"{_SETTING}: {file} cannot be read: {reason}") from None


def _fingerprint(file: Path | None) -> tuple[int, ...] | None:
    """Return a value that changes when the file is written or replaced, or its access; None without a file."""
    try:
        about = os.stat(file) if file is not None else None
    except OSError:
        return None
    return (about.st_ino, about.st_size, about.st_mtime_ns, about.st_ctime_ns) if about else None
