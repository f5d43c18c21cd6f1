"""Read the password of Redis from a file at each connect, so that a new one is used without a restart."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, NamedTuple

from redis.credentials import CredentialProvider
from redis.exceptions import ConnectionError as RedisConnectionError


class PasswordFiles(NamedTuple):
    """Name the files that have the passwords of Redis and of the Sentinels; '' for none."""

    redis: str = ""
    sentinels: str = ""


NO_PASSWORD_FILES = PasswordFiles()


class PasswordFile(CredentialProvider):
    """Give redis-py the URL's user, or the default one, and the password that the file has now."""

    def __init__(self, path: str, username: str | None) -> None:
        self._path = path
        self._username = username

    def get_credentials(self) -> tuple[str] | tuple[str, str]:
        """Return the credentials. Raises redis.exceptions.ConnectionError when the file cannot be read."""
        try:
            password = read_password(self._path)
        except (OSError, ValueError) as failure:
            raise RedisConnectionError(f"the password file cannot be read: {failure}") from failure
        return (self._username, password) if self._username else (password,)

    async def get_credentials_async(self) -> tuple[str] | tuple[str, str]:
        """Return the credentials without blocking the event loop. Raises as above."""
        return await asyncio.to_thread(self.get_credentials)


def read_password(path: str) -> str:
    """Return the first line of the file. Raises OSError; ValueError when it is empty or no text."""
    password = Path(path).read_text("utf-8").partition("\n")[0].strip()
    if not password:
        raise ValueError(f"{path} has no password in its first line")
    return password


def use_password_file(options: dict[str, Any], path: str, *, of_sentinels: bool = False) -> None:
    """Let the options of a connection read the password from this file; '' changes nothing.

    Raises ValueError when they have a password already.
    """
    if not path:
        return
    if options.get("password"):
        what, name = (" for the Sentinels", "_SENTINEL") if of_sentinels else ("", "")
        raise ValueError(
            f"it has a password{what}, and LIFECYCLE_REDIS{name}_PASSWORD_FILE names another: leave out one of them"
        )
    options.pop("password", None)
    options["credential_provider"] = PasswordFile(path, options.pop("username", None))
