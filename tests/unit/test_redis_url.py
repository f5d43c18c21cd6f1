"""A Redis URL names the kind of installation, its addresses and its options."""

from __future__ import annotations

import pytest

from lifecycle.redis_url import Kind, kind_of, parse
from lifecycle.settings import CLUSTER_SHARDS, load
from lifecycle.store.command_keys import key_of
from lifecycle.store.redis import make_client
from lifecycle.store.redis_cluster_topology import slot_of


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("redis://h:1/0", Kind.SINGLE),
        ("rediss://h", Kind.SINGLE),
        ("unix:///run/redis.sock?db=1", Kind.SINGLE),
        ("redis+sentinel://h:1/main", Kind.SENTINEL),
        ("rediss+sentinel://h:1/main", Kind.SENTINEL),
        ("redis+cluster://h:1", Kind.CLUSTER),
        ("rediss+cluster://h:1", Kind.CLUSTER),
    ],
)
def test_the_scheme_says_which_deployment_it_is(url: str, kind: Kind) -> None:
    assert kind_of(url) is kind
    assert parse(url).kind is kind


def test_sentinels_a_service_and_a_database() -> None:
    address = parse("redis+sentinel://app:p%40ss@one:1,two,[::1]:3/main/5?sentinel_username=s&sentinel_password=t")
    assert address.nodes == (("one", 1), ("two", 26379), ("::1", 3))
    assert (address.service, address.database) == ("main", 5)
    assert (address.sentinel_username, address.sentinel_password) == ("s", "t")
    assert address.node_url("three", 7) == "redis://app:p%40ss@three:7/5"


def test_a_cluster_s_nodes_keep_credentials_and_options() -> None:
    address = parse("rediss+cluster://:secret@one:1,two:2?ssl_ca_certs=/ca.pem")
    assert address.node_url("::1", 9) == "rediss://:secret@[::1]:9/0?ssl_ca_certs=%2Fca.pem"


def test_a_password_is_not_shown() -> None:
    assert "secret" not in repr(parse("redis+cluster://:secret@one:1"))
    assert "secret" not in repr(parse("redis+sentinel://one:1/main?sentinel_password=secret"))


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("redis+sentinel://one:1", "service"),
        ("redis+sentinel://one:1/main/x", "database"),
        ("redis+cluster://one:1/3", "database 0"),
        ("redis+cluster://", "host:port"),
        ("redis+cluster://one:port", "host:port"),
        ("redis+cluster://one:99999", "host:port"),
    ],
)
def test_what_cannot_be_meant_is_one_line(url: str, says: str) -> None:
    with pytest.raises(ValueError, match=says) as refused:
        make_client(url, socket_timeout_secs=1.0)
    assert "\n" not in str(refused.value)


def test_a_cluster_is_spread_over_shards_unless_it_is_told_otherwise() -> None:
    url = "redis+cluster://one:1"
    assert load({"redis_url": url}).shards == CLUSTER_SHARDS
    assert load({"redis_url": url, "shards": 3}).shards == 3
    assert load({"redis_url": "redis://one:1"}).shards == 1
    assert "shards" not in load({"redis_url": url}).model_fields_set, "what nobody has said, nobody contradicts"


@pytest.mark.parametrize(
    ("command", "key"),
    [
        (("HGETALL", "k"), "k"),
        (("EVALSHA", "sha", 1, "k", "a"), "k"),
        (("XINFO", "CONSUMERS", "k", "g"), "k"),
        (("PING",), None),
        (("SCAN", "0", "MATCH", "x"), None),
    ],
)
def test_the_key_of_a_command(command: tuple[str, ...], key: str | None) -> None:
    assert key_of(command) == key


def test_slots_are_those_of_the_specification() -> None:
    assert slot_of("123456789") == 12739
    assert slot_of(b"lc:{tag}:a") == slot_of("other:{tag}:b") == slot_of("tag")
    assert slot_of("{}empty") != slot_of("")
