"""Redis forbids a command that scripts use: what cannot be read is not unknown, and no such error is swallowed.

That no script is half done then is shown in `test_half_done_scripts.py`.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterable, Iterator

import pytest

from lifecycle.cli.doctor.command import examine
from lifecycle.cli.doctor.finding import Level
from lifecycle.errors import StoreUnavailable
from lifecycle.local.embedded_redis import EmbeddedRedis
from lifecycle.settings import Settings
from lifecycle.store.connect import open_store
from lifecycle.store.permissions import needed_commands
from lifecycle.store.results import ExpiredReplica, Taken
from lifecycle.store.transitions import Store
from lifecycle.store.webhooks import ClaimedWebhooks
from lifecycle.types import CancelMode, Role
from tests.admitting import admit
from tests.joining import join
from tests.servers import ask


@pytest.fixture
def server() -> Iterator[EmbeddedRedis]:
    with EmbeddedRedis(port=0) as server:
        yield server


async def test_a_request_is_not_unknown(server: EmbeddedRedis) -> None:
    async with open_store(Settings(redis_url=server.url)) as store:
        key = store.keys.prefix_of("r1") + "request:r1"
        await store.commands.execute("HSET", key, "status", "running")
        ask(server, "ACL", "SETUSER", "default", "-hgetall")
        with pytest.raises(StoreUnavailable):
            await store.read("r1")


async def test_a_queued_request_is_not_dropped(server: EmbeddedRedis) -> None:
    async with open_store(Settings(redis_url=server.url)) as store:
        await admit(store, "r1")
        ask(server, "ACL", "SETUSER", "default", "-hmget")
        with pytest.raises(StoreUnavailable):
            await _take(store)
        ask(server, "ACL", "SETUSER", "default", "+hmget")
        assert len((await _take(store)).runs) == 1


async def test_a_cancel_is_not_lost_on_its_way_to_a_worker(server: EmbeddedRedis) -> None:
    async with open_store(Settings(redis_url=server.url)) as store:
        await _start(store, "r1")
        await store.cancel("r1", CancelMode.STOP, "")
        ask(server, "ACL", "SETUSER", "default", "-hmget")
        with pytest.raises(StoreUnavailable):  # and not a kill, which a request that has ended gets
            await store.reconcile_shard(0, "worker-1", Role.WORKER)


async def test_a_webhook_is_not_dropped(server: EmbeddedRedis) -> None:
    async with open_store(Settings(redis_url=server.url)) as store:
        await admit(store, "r1", webhook_url="https://example.com/")
        await store.cancel("r1", CancelMode.KILL, "")
        ask(server, "ACL", "SETUSER", "default", "-hget")
        with pytest.raises(StoreUnavailable):
            await _claim(store)
        ask(server, "ACL", "SETUSER", "default", "+hget")
        assert (await _claim(store)).lost == 0


async def test_a_request_that_cannot_leave_the_queue_stays(server: EmbeddedRedis) -> None:
    async with open_store(Settings(redis_url=server.url)) as store:
        await admit(store, "r1")
        ask(server, "ACL", "SETUSER", "default", "-zrem")
        with pytest.raises(StoreUnavailable):
            await _take(store)
        ask(server, "ACL", "SETUSER", "default", "+zrem")
        assert len((await _take(store)).runs) == 1


async def test_content_is_measured_without_the_command_for_it(server: EmbeddedRedis) -> None:
    async with open_store(Settings(redis_url=server.url)) as store:
        await admit(store, "r1", owner="acme", storage="kept")
        ask(server, "ACL", "SETUSER", "default", "-memory")
        await store.cancel("r1", CancelMode.KILL, "")
        assert int(await store.commands.execute("GET", store.keys.prefixes[0] + "stored_bytes:acme")) > 0


async def test_the_wrong_types_of_others_fail_nothing(server: EmbeddedRedis) -> None:
    async with open_store(Settings(redis_url=server.url)) as store:
        prefix = store.keys.prefixes[0]
        await store.commands.execute("SADD", prefix + "pending_cancellations:worker-1", "r1")
        await store.commands.execute("ZADD", prefix + "webhooks", "1", "e1")
        for key in ("request:r1", "webhook:e1"):
            await store.commands.execute("SET", prefix + key, "text")
        reconciliation = await store.reconcile_shard(0, "worker-1", Role.WORKER)
        assert [cancel.rid for cancel in reconciliation.pending_cancellations] == ["r1"]
        assert (await _claim(store)).lost == 1
        assert (await store.reap(0, ExpiredReplica("worker-1", Role.WORKER))).done


@pytest.mark.parametrize("arguments", [["frontend", "--port", "0"], ["worker", "--engine", "echo", "--model", "m"]])
def test_a_replica_does_not_start_without_a_command_that_it_needs(server: EmbeddedRedis, arguments: list[str]) -> None:
    ask(server, "ACL", "SETUSER", "default", "-hincrby", "-zpopmin")
    program = [sys.executable, "-m", "lifecycle.cli.main", *arguments, "--redis-url", server.url]
    ended = subprocess.run(program, check=False, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 1
    assert re.fullmatch(
        rf"lifecycle: Redis forbids its user commands that a {arguments[0]} needs; "
        r"allow them with ACL SETUSER <user> \+hincrby \+zpopmin\n",
        ended.stderr,
    )
    assert ask(server, "DBSIZE") == 0, "nothing was written"


@pytest.mark.parametrize("role", Role)
async def test_doctor_only_warns_of_what_the_user_of_a_replica_lacks(server: EmbeddedRedis, role: Role) -> None:
    async with open_store(Settings(redis_url=server.url)) as store:
        await join(store, "w0", Role.WORKER, {}, ["m"])
        _be_a_user(server, needed_commands(role))
        found = [each for each in await examine(store) if each.check == "permissions" and each.level is not Level.OK]
    assert {finding.level for finding in found} == {Level.WARN}
    said = [finding.message for finding in found]
    assert [text for text in said if "'hvals'" in text and "cluster" in text]
    assert [text for text in said if "'scan'" in text and "keys" in text]
    assert (role is Role.WORKER) == any("ZREVRANGEBYSCORE" in text and "'lifecycle ps'" in text for text in said)
    assert all("deploy/redis/users.acl" in finding.advice for finding in found)


async def test_doctor_fails_where_neither_a_replica_nor_an_operator_has_its_commands(server: EmbeddedRedis) -> None:
    _be_a_user(server, [command for command in needed_commands(Role.FRONTEND) if command != "XADD"])
    async with open_store(Settings(redis_url=server.url)) as store:
        found = [finding for finding in await examine(store) if finding.check == "permissions"]
    assert {finding.level for finding in found} == {Level.FAIL}
    assert "XADD" in found[0].message


def _be_a_user(server: EmbeddedRedis, commands: Iterable[str]) -> None:
    """Allow the user of this test's connections these commands, and those that every user needs."""
    allowed = ["eval", "evalsha", "info", "ping", "time", *commands]
    ask(server, "ACL", "SETUSER", "default", "-@all", "+acl", *(f"+{command.lower()}" for command in allowed))


async def _claim(store: Store) -> ClaimedWebhooks:
    return await store.claim_webhooks(0, "t", limit=1, claim_secs=1.0, under_way={}, origin_limit=1)


async def _take(store: Store) -> Taken:
    taken = await store.take(0, "worker-1", 1, "nonce-01", ["m"], 1)
    assert taken is not None
    return taken


async def _start(store: Store, rid: str) -> None:
    """Admit a request and start an attempt at worker-1."""
    await admit(store, rid)
    assert [run.rid for run in (await _take(store)).runs] == [rid]
