"""Classify the errors of Redis: a few tell something about the data, and every other one means that Redis is away.

The list of those about the data is closed. Taking a refusal that passes for the loss of a stream would end requests
because of a full disk, a mistake in the access rules, or an error that only a later version or a proxy knows.
"""

from __future__ import annotations

import re

from redis.asyncio.sentinel import MasterNotFoundError
from redis.exceptions import (
    AskError,
    AuthenticationError,
    MaxConnectionsError,
    MovedError,
    NoPermissionError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    ResponseError,
    TryAgainError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from lifecycle.errors import REFUSES, StoreForbidden, StoreFull, StoreUnavailable

_CODE = re.compile(r"-?([A-Z]{3,}[A-Z0-9]*)\b")
_ABOUT_THE_DATA = re.compile(
    r"WRONGTYPE |no such key"
    r"|user_script:\d+: |Error compiling script"  # a script met what it does not expect, or cannot run here at all
    r"|(hash )?value is not |(increment|decrement|increment or decrement) would |The ID specified in XADD "
)
_FORBIDDEN = re.compile(r"to run the '([^']+)' command")
# In Redis 7.0; after it, with the code NOPERM in Redis and ERR in Valkey.
_FORBIDDEN_IN_SCRIPT = re.compile("The user executing the script |ACL failure in script")
_ARGUMENTS = ", with args beginning with"  # of a command that is not known; they may be a part of a prompt


def unavailable(failure: BaseException, command: str = "") -> StoreUnavailable | None:
    """Return the error as StoreUnavailable, or None when it tells something about the data, or is a bug.

    None is also returned for NOSCRIPT, with which an EVALSHA answers its caller.
    """
    if isinstance(failure, AuthenticationError):
        return StoreUnavailable("Redis refused the credentials of LIFECYCLE_REDIS_URL", str(failure))
    if isinstance(failure, MovedError):
        return StoreUnavailable(
            "This Redis server is a node of a Redis Cluster: use a URL redis+cluster://host:port,host:port"
        )
    if isinstance(failure, (AskError, TryAgainError)):
        return StoreUnavailable(
            "Redis Cluster is moving this part of the data and refuses commands until the move is over"
        )
    if isinstance(failure, MasterNotFoundError):  # its words show how the clients of the Sentinels were made
        return StoreUnavailable("Redis cannot be reached", str(failure).partition(" : ")[0])
    if isinstance(failure, (RedisConnectionError, RedisTimeoutError, MaxConnectionsError, OSError)):
        words = str(failure)
        return StoreUnavailable("Redis cannot be reached" if words else "Redis did not answer in time", words)
    if isinstance(failure, OutOfMemoryError):
        return StoreFull(str(failure))
    if isinstance(failure, ReadOnlyError):
        return StoreUnavailable("Redis refuses writes", str(failure))
    if not isinstance(failure, ResponseError) or (command == "EVALSHA" and isinstance(failure, NoScriptError)):
        return None
    return _refusal(failure)


def _refusal(failure: ResponseError) -> StoreUnavailable | None:
    """Return the refusal of a command as StoreUnavailable, unless it tells something about the data."""
    words = str(failure).partition(_ARGUMENTS)[0]
    if _ABOUT_THE_DATA.match(words):
        return None
    found = _CODE.match(words)
    code = found[1] if found else getattr(failure, "status_code", None)  # redis-py removes the codes that it knows
    if isinstance(failure, NoPermissionError) or _FORBIDDEN_IN_SCRIPT.search(words):
        code = "NOPERM"
    shown = f" ({code})" if code and code != "ERR" else ""
    summary = REFUSES + shown
    if code != "NOPERM":
        return StoreUnavailable(summary, words)
    return StoreForbidden(summary, words, tuple(name.upper() for name in _FORBIDDEN.findall(words)))
