"""No script is half done when Redis forbids one of its commands: it changes nothing, or what a repetition completes.

Each script runs with each of its commands forbidden. Afterwards nothing may have changed, or nothing may leak and the
same call, once it is allowed, must leave what it leaves when nothing was forbidden.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Any, Literal

import pytest

from lifecycle.errors import StoreUnavailable
from lifecycle.local.embedded_redis import EmbeddedRedis
from lifecycle.settings import Settings
from lifecycle.store import script_loader
from lifecycle.store.connect import open_store
from lifecycle.store.new_request import NewRequest, Parent
from lifecycle.store.quota_slots import QuotaSlots
from lifecycle.store.results import START_LOST, Append, Outcome, StartedAttempt, UnservedModel
from lifecycle.store.transitions import Store
from lifecycle.store.webhooks import WebhookEvent
from lifecycle.types import CancelMode, Labels, ReplicaAction, Role
from tests.admitting import new_request
from tests.integration.take_scenarios import EVERYTHING, STORED, TAKES, URL, Call
from tests.leaks import leaks
from tests.servers import ask
from tests.unit.world import MODEL, World

_TIME = re.compile(r"\d{10}\.\d+|\d{13}(-\d+)?|mean_secs', '[\d.]+")
_PARENT = Parent("p", "1.0", 2)


async def _admit(world: World) -> Call:
    return lambda: world.admit(**STORED, **EVERYTHING)


def _tracked(rid: str, **more: Any) -> NewRequest:
    return new_request(rid, "n", Labels("my-agent", "agent", "stream"), "f0", b"", "cancel", **more)


async def _track(world: World) -> Call:
    new = _tracked(
        "r", first_token_timeout_secs=60.0, deadline_secs=60.0, owner="acme", parent=_PARENT, own_labels=b"{}"
    )
    return lambda: world.store.track(new)


async def _reap_tracked(world: World) -> Call:
    await world.store.track(_tracked("r0"))
    await world.store.track(_tracked("r1", deadline_secs=60.0))
    await world.cancel(rid="r1")
    expired = await world.expire("f0")
    return lambda: world.store.reap(0, expired)


async def _append(world: World) -> Call:
    await world.run(first_token_timeout_secs=60.0)
    return lambda: world.append(1)


def _finish(**admission: Any) -> Callable[[World], Awaitable[Call]]:
    async def prepare(world: World) -> Call:
        await world.run(**admission)
        last = Append("r", 1, 1, b'["1.1 "]', True)
        outcome = Outcome("completed", finish_reason="stop")
        return lambda: world.store.finish("r", "w0", 1, outcome, 1, remainder=last)

    return prepare


def _confirm(mode: str) -> Callable[[World], Awaitable[Call]]:
    async def prepare(world: World) -> Call:
        await world.run()
        await world.cancel(mode)
        return lambda: world.finish(outcome=Outcome("cancelled"))

    return prepare


def _running(call: Callable[[Store], Awaitable[Any]], **admission: Any) -> Callable[[World], Awaitable[Call]]:
    async def prepare(world: World) -> Call:
        await world.run(**admission)
        await world.append(1)
        return lambda: call(world.store)

    return prepare


def _queued(call: Callable[[Store], Awaitable[Any]], **admission: Any) -> Callable[[World], Awaitable[Call]]:
    async def prepare(world: World) -> Call:
        await world.admit(**admission)
        return lambda: call(world.store)

    return prepare


async def _requeue(world: World) -> Call:
    await world.run(**EVERYTHING)
    return lambda: world.store.requeue("r", "w0", 1)


async def _reap_worker(world: World) -> Call:
    await world.run("r0", **EVERYTHING)
    await world.run("r1")
    await world.append(1, rid="r1")
    await world.admit("r2")
    await world.take()
    expired = await world.expire("w0")
    return lambda: world.store.reap(0, expired)


async def _reap_frontend(world: World) -> Call:
    await world.run("r0", grace_secs=60.0)
    await world.run("r1", on_disconnect="continue")
    await world.admit("r2")
    await world.admit("r3", frontend="f1", grace_secs=60.0)
    await world.store.attach("r3", "f0", 1)
    expired = await world.expire("f0")
    return lambda: world.store.reap(0, expired)


async def _sweep_deadlines(world: World) -> Call:
    await world.run("r0", deadline_secs=30.0)
    await world.admit("r1", queue_timeout_secs=30.0, **STORED)
    world.shift_clock(60.0)
    return lambda: world.store.sweep(0)


async def _sweep_unserved(world: World) -> Call:
    await world.admit()
    return lambda: world.store.sweep(0, [UnservedModel(MODEL, "nobody serves it")])


async def _sweep_expired(world: World) -> Call:
    await world.admit(owner="acme")
    await world.cancel()
    world.shift_clock(world.store.settings.retention_secs + 1)
    return lambda: world.store.sweep(0)


async def _sweep_lost(world: World) -> Call:
    await world.admit()
    await world.store.command("DEL", f"{world.prefix}flow:0|0||{MODEL}")
    return lambda: world.store.sweep(0)


async def _delete_content(world: World) -> Call:
    await world.run(**STORED)
    await world.finish()
    return lambda: world.store.delete_content("r")


async def _claim(world: World) -> Call:
    await world.admit(webhook_url=URL)
    await world.cancel()
    world.shift_clock(1.0)
    return lambda: world.store.claim_webhooks(0, "t", limit=1, claim_secs=1.0, under_way={}, origin_limit=1)


def _settle(outcome: Literal["delivered", "failed"]) -> Callable[[World], Awaitable[Call]]:
    async def prepare(world: World) -> Call:
        claim = await (await _claim(world))()
        event: WebhookEvent = claim.events[0]
        return lambda: world.store.settle_webhook(0, event, "t", outcome)

    return prepare


async def _expire(world: World) -> Call:
    return lambda: world.store.expire(0, "w0")


async def _heartbeat(world: World) -> Call:
    return lambda: world.store.heartbeat("w9", Role.WORKER, {}, ["another"])


async def _instruct(world: World) -> Call:
    return lambda: world.store.instruct("w0", ReplicaAction.PAUSE, "operator:cli")


async def _reserve(world: World) -> Call:
    return lambda: QuotaSlots(world.store).reserve("acme", "r", "n", 1)


async def _configure(world: World) -> Call:
    return lambda: world.store.configure("max_attempts", 7)


async def _reconcile(world: World) -> Call:
    return lambda: world.store.reconcile_shard(0, "w0", Role.WORKER)


async def _reconcile_newcomer(world: World) -> Call:
    return lambda: world.store.reconcile_shard(0, "w9", Role.WORKER, models=["another"], draining=True, sweeps=True)


async def _leave(world: World) -> Call:
    return lambda: world.store.leave("w0", Role.WORKER)


async def _heartbeat_after_a_death(world: World) -> Call:
    for _ in range(4):
        world.shift_clock(world.store.settings.lease_secs / 3)
        await world.store.heartbeat("w1", Role.WORKER, {}, [MODEL])
    return lambda: world.store.heartbeat("w1", Role.WORKER, {"state": "draining"}, [MODEL])


async def _confirm_writes(world: World) -> Call:
    return lambda: world.store.run("confirm", world.prefix)


async def _cancel_parent(world: World) -> Call:
    await world.admit(parent=_PARENT)
    await world.store.note_child("r", "child", "")
    return lambda: world.store.cancel("r", CancelMode.KILL, "why")


async def _claim_children(world: World) -> Call:
    await world.admit(parent=_PARENT)
    await world.store.command("ZADD", world.prefix + "with_parent", 0, "lost")
    world.shift_clock(1.0)
    return lambda: world.store.claim_children(0, 1.0)


async def _secret(world: World) -> Call:
    return world.store.read_secret


SCENARIOS: dict[str, Callable[[World], Awaitable[Call]]] = {
    "admit": _admit,
    "track": _track,
    "reap tracked": _reap_tracked,
    **TAKES,
    "append": _append,
    "finish": _finish(**EVERYTHING),
    "finish kept": _finish(**STORED),
    "finish stopped": _confirm("stop"),
    "finish killed": _confirm("kill"),
    "fail": _running(lambda s: s.fail("r", "internal", "why"), **STORED),
    "cancel": _running(lambda s: s.cancel("r", CancelMode.KILL, "why")),
    "cancel stop": _running(lambda s: s.cancel("r", CancelMode.STOP, "why")),
    "cancel queued": _queued(lambda s: s.cancel("r", CancelMode.KILL, "why"), **STORED, **EVERYTHING),
    "attach": _running(lambda s: s.attach("r", "f1", 1), grace_secs=60.0),
    "disconnect": _running(lambda s: s.disconnect("r", "f0", 0, "closed_unexpectedly", admitting=True)),
    "disconnect grace": _queued(
        lambda s: s.disconnect("r", "f0", 0, "closed_unexpectedly", admitting=True), grace_secs=60.0
    ),
    "requeue": _requeue,
    "reap worker": _reap_worker,
    "reap frontend": _reap_frontend,
    "sweep deadlines": _sweep_deadlines,
    "sweep unserved": _sweep_unserved,
    "sweep expired": _sweep_expired,
    "sweep lost": _sweep_lost,
    "lost_start": _running(lambda s: s.report_lost_start("r", StartedAttempt(2, "n"), START_LOST)),
    "delete_content": _delete_content,
    "claim_webhooks": _claim,
    "settle_webhook delivered": _settle("delivered"),
    "settle_webhook failed": _settle("failed"),
    "expire": _expire,
    "heartbeat": _heartbeat,
    "instruct": _instruct,
    "reserve": _reserve,
    "configure": _configure,
    "reconcile_shard": _reconcile,
    "reconcile_shard newcomer": _reconcile_newcomer,
    "leave": _leave,
    "heartbeat after a death": _heartbeat_after_a_death,
    "confirm": _confirm_writes,
    "secret": _secret,
    "note_child": _running(lambda s: s.note_child("r", "child", "")),
    "cancel a parent": _cancel_parent,
    "claim_children": _claim_children,
}


@pytest.fixture(scope="module")
def server() -> Any:
    with EmbeddedRedis(port=0) as server:
        yield server


@pytest.fixture
async def store(server: EmbeddedRedis, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Store]:
    """Provide a store that makes the same calls each time."""
    monkeypatch.setattr("lifecycle.store.admissions.new_start_nonce", lambda: "nonce-01")
    monkeypatch.setattr("lifecycle.store.control_slot.secrets.token_hex", lambda _: "secret")
    async with open_store(Settings(redis_url=server.url, namespace="lc")) as store:
        yield store


def _commands(name: str) -> list[str]:
    """Return the commands of a script, also those that it can do without."""
    found = script_loader.commands_of(script_loader.load(name).source)
    return [*found, "MEMORY USAGE", *(["XADD"] if name == "append" else [])]


def test_every_script_that_writes_is_here() -> None:
    writing = {name for name in script_loader.names() if "no-writes" not in script_loader.load(name).source[:80]}
    assert {name.partition(" ")[0] for name in SCENARIOS} == writing


@pytest.mark.parametrize("scenario", SCENARIOS)
async def test_a_script_is_done_wholly_or_not_at_all(server: EmbeddedRedis, store: Store, scenario: str) -> None:
    async def prepared() -> Call:
        ask(server, "FLUSHALL")
        store.clock_shift_secs = 0.0
        world = World(store)
        await world.heartbeat()
        return await SCENARIOS[scenario](world)

    await (await prepared())()
    undisturbed = _contents(server)
    half_done = []
    for command in _commands(scenario.partition(" ")[0]):
        call = await prepared()
        before = _contents(server)
        ask(server, "ACL", "SETUSER", "default", "-" + command.lower().replace(" ", "|"))
        try:
            with suppress(StoreUnavailable):
                await call()
        finally:
            ask(server, "ACL", "SETUSER", "default", "+@all")
        if _contents(server) == before:
            continue
        half_done += [f"{command}: {leak}" for leak in await leaks(store.commands, "lc", inflight_allowed=True)]
        await call()
        if command != "MEMORY USAGE" and _contents(server) != undisturbed:  # without it the size is an estimate
            half_done.append(f"{command}: {_difference(undisturbed, _contents(server))}")
    assert half_done == []


async def test_contents_do_not_tell_in_which_ten_seconds_requests_were_started(
    server: EmbeddedRedis, store: Store
) -> None:
    """Redis counts the starts of each ten seconds, which may begin while a scenario is prepared."""
    found = []
    for apart_secs in (0.0, 10.0):
        ask(server, "FLUSHALL")
        world = World(store)
        await world.heartbeat()
        await world.run("r0")
        world.shift_clock(apart_secs)
        await world.run("r1")
        found.append(_contents(server))
    assert _difference(*found) == ""


_READ_ALL = """
local reads = {hash = {'HGETALL'}, string = {'GET'}, set = {'SMEMBERS'}, zset = {'ZRANGE', 0, -1},
  stream = {'XRANGE', '-', '+'}}
local found = {}
for _, key in ipairs(redis.call('KEYS', '*')) do
  local read = reads[redis.call('TYPE', key).ok]
  local content = redis.call(read[1], key, unpack(read, 2))
  found[#found + 1] = {key, read[1], content, redis.call('PTTL', key) > 0 and 1 or 0}
end
return found
"""


def _contents(server: EmbeddedRedis) -> dict[str, Any]:
    """Return each Redis key with its content and whether it expires, without times."""
    found = {}
    for key, read, content, expires in ask(server, "EVAL", _READ_ALL, 0):
        if read == "HGETALL":
            content = _with_all_starts(dict(zip(content[::2], content[1::2], strict=True)))
        elif read == "SMEMBERS":
            content = sorted(content)
        found[key] = (_TIME.sub("*", str(content)), bool(expires))
    return found


def _with_all_starts(fields: dict[str, str]) -> list[tuple[str, str]]:
    """Return the fields of a hash, those of a model's starts in each ten seconds as one."""
    counts = [int(fields.pop(name).split()[1]) for name in list(fields) if name.startswith("starts:")]
    return sorted(fields.items() | {("starts", str(sum(counts)))})


def _difference(expected: dict[str, Any], found: dict[str, Any]) -> str:
    keys = sorted(key for key in expected.keys() | found.keys() if expected.get(key) != found.get(key))
    return "; ".join(f"{key} is {found.get(key)} instead of {expected.get(key)}" for key in keys)
