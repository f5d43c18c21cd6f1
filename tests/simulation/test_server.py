"""The simulated Redis answers as a real server does: the same random commands, and the same scripts, on both."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest
from redis import Redis
from redis.exceptions import ResponseError

from lifecycle.settings import Settings
from tests.conftest import MakeSettings
from tests.simulation.server.replies import CommandError, Simple
from tests.simulation.server.server import Server

pytestmark = pytest.mark.slow

_NOW_SECS = 1_700_000_000.0
_KEYS = ("a", "b")
_MEMBERS = ("x", "y", "z")
_SCORES = ("1", "2.5", "2", "-3", "1e9")
_IDS = ("1-1", "1-2", "2-0", "2-5", "18446744073709551615-18446744073709551615", "*")


@pytest.fixture
def real(make_settings: MakeSettings) -> Iterator[Redis]:
    settings: Settings = make_settings()
    client = Redis.from_url(settings.redis_url, protocol=2)
    client.response_callbacks.clear()
    yield client
    client.close()


class Both:
    """Sends each command to both servers, under keys of its own, and compares the answers."""

    def __init__(self, real: Redis, prefix: str) -> None:
        self._send: Any = real.execute_command
        self._prefix = prefix
        self._simulated = Server(lambda: _NOW_SECS, seed=1)

    def send(self, *command: str) -> None:
        words = [f"{self._prefix}{word}" if word in _KEYS else word for word in command]
        simulated = _plain(self._simulated.execute([word.encode() for word in words]))
        try:
            real = _plain(self._send(*words))
        except ResponseError as failure:
            real = _code(str(failure))
        assert simulated == real, command

    def clear(self) -> None:
        for key in _KEYS:
            self.send("DEL", key)


def _plain(reply: Any) -> Any:
    if isinstance(reply, CommandError):
        return _code(str(reply).removeprefix("ERR "))
    if isinstance(reply, (list, tuple)):
        return [_plain(part) for part in reply]
    if isinstance(reply, Simple):
        return bytes(reply)
    return reply


def _code(message: str) -> str:
    """Return the code of an error. redis-py leaves ERR out."""
    word = message.split()[0]
    return f"error {word}" if word.isupper() else "error"


def _hash_command(dice: random.Random) -> tuple[str, ...]:
    key, field, other = dice.choice(_KEYS), dice.choice(_MEMBERS), dice.choice(_MEMBERS)
    return dice.choice(
        (
            ("HSET", key, field, "1", other, "2"),
            ("HSETNX", key, field, "3"),
            ("HGET", key, field),
            ("HMGET", key, field, other),
            ("HLEN", key),
            ("HDEL", key, field, other),
            ("HINCRBY", key, field, "-1"),
            ("HKEYS", key),
            ("HGETALL", key),
        )
    )


def _sorted_set_command(dice: random.Random) -> tuple[str, ...]:
    key, member, score, other = dice.choice(_KEYS), dice.choice(_MEMBERS), dice.choice(_SCORES), dice.choice(_SCORES)
    option = dice.choice((("NX",), ("XX",), ("XX", "GT"), ()))
    low, high = dice.choice(("-inf", score, f"({score}")), dice.choice(("+inf", other, f"({other}"))
    rank, last = str(dice.randint(-3, 2)), str(dice.randint(-3, 3))
    return dice.choice(
        (
            ("ZADD", key, *option, score, member),
            ("ZREM", key, member),
            ("ZSCORE", key, member),
            ("ZCARD", key),
            ("ZPOPMIN", key),
            ("ZCOUNT", key, low, high),
            ("ZRANGEBYSCORE", key, low, high, "WITHSCORES", "LIMIT", "0", "2"),
            ("ZREVRANGEBYSCORE", key, high, low),
            ("ZRANGE", key, rank, last, "WITHSCORES"),
            ("ZRANGE", key, high, low, "BYSCORE", "REV", "LIMIT", "0", "1", "WITHSCORES"),
            ("ZREMRANGEBYRANK", key, rank, last),
            ("ZREMRANGEBYSCORE", key, low, high),
        )
    )


def _stream_command(dice: random.Random) -> tuple[str, ...]:
    key, entry, other = dice.choice(_KEYS), dice.choice(_IDS[:-1]), dice.choice(_IDS[:-1])
    return dice.choice(
        (
            ("XADD", key, *dice.choice((("NOMKSTREAM",), ())), entry, "f", "v"),
            ("XLEN", key),
            ("XDEL", key, entry),
            ("XRANGE", key, dice.choice(("-", entry, f"({entry}")), dice.choice(("+", other)), "COUNT", "2"),
            ("XREVRANGE", key, dice.choice(("+", entry)), dice.choice(("-", other)), "COUNT", "2"),
        )
    )


def _plain_command(dice: random.Random) -> tuple[str, ...]:
    key, member = dice.choice(_KEYS), dice.choice(_MEMBERS)
    return dice.choice(
        (
            ("SET", key, "5"),
            ("SET", key, "6", "NX", "GET"),
            ("SET", key, "7", "XX"),
            ("GET", key),
            ("STRLEN", key),
            ("INCRBY", key, "2"),
            ("DECRBY", key, "3"),
            ("SADD", key, member, "x"),
            ("SREM", key, member),
            ("SCARD", key),
            ("EXISTS", key),
            ("TYPE", key),
            ("PTTL", key),
            ("PERSIST", key),
            ("DEL", key),
            ("HLEN", key),
            ("XLEN", key),
        )
    )


@pytest.mark.parametrize("draw", [_plain_command, _hash_command, _sorted_set_command, _stream_command])
def test_random_commands_are_answered_alike(draw: Any, real: Redis, namespace: str) -> None:
    both = Both(real, f"{namespace}:")
    for seed in range(40):
        dice = random.Random(seed)
        for _ in range(50):
            both.send(*draw(dice))
        both.clear()


@pytest.mark.parametrize(
    "body",
    [
        "return {1, 2.9, 'three', {4}, false, 5}",
        "return redis.call('HGET', KEYS[1], 'missing') == false and 'nothing' or 'something'",
        "return redis.pcall('HSET', KEYS[1], 'odd').err ~= nil and 1 or 0",
        "return {err = 'MINE it is'}",
        "return redis.call('SET', KEYS[1], 'x')",
        "return redis.call('SET', KEYS[1], 1.5)",
        "redis.call('SET', KEYS[1], 12345678901234) return redis.call('GET', KEYS[1])",
        "return cjson.encode({a = 'quo\"te / \\\\ \\n', })",
        "return cjson.encode({1, 2.5, 'x', true})",
        "return cjson.encode({})",
        'return cjson.decode(\'[1, {"a": ["b", 2]}]\')[2].a[1]',
        "return tostring(cjson.decode('{\"n\": 10}').n)",
        "return {unpack({1, nil, 3}, 1, 3)}",
        "return #ARGV",
    ],
)
def test_scripts_are_answered_alike(body: str, real: Redis, namespace: str) -> None:
    both = Both(real, f"{namespace}:")
    both.send("EVAL", body, "1", "a", "first", "second")
    both.send("TYPE", "a")
    both.clear()
