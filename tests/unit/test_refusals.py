"""Errors of Redis: only those that tell something about the data are final; every other one may pass."""

from __future__ import annotations

from typing import Any

import pytest
from redis.asyncio.connection import Connection
from redis.exceptions import ResponseError

from lifecycle.errors import StoreForbidden
from lifecycle.local.embedded_redis import EmbeddedRedis
from lifecycle.store.redis_errors import unavailable
from tests.servers import ask


def _parsed(reply: str) -> Exception:
    """Return the exception that redis-py makes of an error reply."""
    parser: Any = Connection()._parser
    failure: Exception = parser.parse_error(reply)
    return failure


@pytest.mark.parametrize(
    "reply",
    [
        "MISCONF Redis is configured to save RDB snapshots, but it is unable to persist to disk.",
        "NOPERM this user has no permissions to run the 'xadd' command",
        "NOPERM ACL failure in script: User default has no permissions to run the 'xadd' command",
        "ERR ACL failure in script: User default has no permissions to run the 'xadd' command",
        "NOAUTH Authentication required.",
        "WRONGPASS invalid username-password pair or user is disabled.",
        "READONLY You can't write against a read only replica.",
        "OOM command not allowed when used memory > 'maxmemory'.",
        "LOADING Redis is loading the dataset in memory",
        "BUSY Redis is busy running a script.",
        "MASTERDOWN Link with MASTER is down",
        "NOREPLICAS Not enough good replicas to write.",
        "CLUSTERDOWN The cluster is down",
        "TRYAGAIN Multiple keys request during rehashing of slot",
        "CROSSSLOT Keys in request don't hash to the same slot",
        "UNKILLABLE Sorry the script already executed write commands",
        "EXECABORT Transaction discarded because of previous errors.",
        "NEWPREFIX an error of a version that does not exist yet",
        "NOSCRIPT No matching script. Please use EVAL.",
        "BUSYGROUP Consumer Group name already exists",
        "ERR unknown command 'FUNCTION'",
        "ERR no upstream host",
        "ERR",
        "ERR The user executing the script can't run this command or subcommand script: f_1, on @user_script:1.",
    ],
)
def test_a_refusal_is_waited_for(reply: str) -> None:
    found = unavailable(_parsed(reply))
    assert found is not None
    assert "redis" in found.summary.lower()


@pytest.mark.parametrize(
    "reply",
    [
        "WRONGTYPE Operation against a key holding the wrong kind of value",
        "ERR no such key",
        "ERR hash value is not an integer script: f_1, on @user_script:1.",
        "ERR user_script:1: attempt to perform arithmetic on a nil value script: f_1, on @user_script:1.",
    ],
)
def test_what_redis_says_about_the_data_is_final(reply: str) -> None:
    assert unavailable(_parsed(reply)) is None


def test_an_answer_of_one_command_is_a_refusal_of_another() -> None:
    unknown = _parsed("NOSCRIPT No matching script.")
    assert unavailable(unknown, "EVALSHA") is None
    assert unavailable(unknown, "EVAL") is not None


def test_the_arguments_of_an_unknown_command_are_not_shown() -> None:
    found = unavailable(_parsed("ERR unknown command 'EVALSHA', with args beginning with: 'secret' "))
    assert "secret" not in str(found)


def test_a_server_words_its_refusals_so() -> None:
    """The codes above are those of a real server."""
    with EmbeddedRedis(port=0) as server:
        ask(server, "SET", "text", "1")
        with pytest.raises(ResponseError) as wrong_type:
            ask(server, "XADD", "text", "*", "a", "b")
        ask(server, "ACL", "SETUSER", "default", "-xadd")
        with pytest.raises(ResponseError) as forbidden:
            ask(server, "XADD", "stream", "*", "a", "b")
        with pytest.raises(ResponseError) as in_a_script:
            ask(server, "EVAL", "return redis.call('XADD', 'stream', '*', 'a', 'b')", "0")
    assert unavailable(wrong_type.value) is None
    for refused in (forbidden.value, in_a_script.value):
        found = unavailable(refused)
        assert isinstance(found, StoreForbidden)
        assert found.summary == "Redis refuses commands for now (NOPERM)"
        assert found.commands in (("XADD",), ()), "Redis 7.0 does not name the command of a script"
