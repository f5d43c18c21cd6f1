"""A Redis that refuses every command for a moment, whatever its error is, is a Redis that is away.

All paths wait for it: streams and readers, heartbeats, subscriptions and webhooks; calls are answered 503.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

import pytest

from lifecycle.errors import StoreUnavailable
from lifecycle.execution.context import EngineContext
from lifecycle.local.embedded_redis import EmbeddedRedis
from lifecycle.queries import cluster
from lifecycle.settings import Settings
from lifecycle.store.connect import open_store
from tests.chaos.links import PER_PROCESS, Links
from tests.cluster_setup import ClusterSetup
from tests.edge import EdgeServer, edge_server
from tests.known_faults.core.replicas import MODEL, quick_settings, served, worker
from tests.receiver import SECRET, receiving
from tests.refusing_redis import RefusingRedis
from tests.sse import chat, error_of, post, text_of
from tests.waiting import wait_until

TOKENS = 150
PAUSE_SECS = 0.02
LEASE_SECS = 3.0
EVERY_PATH = (
    "append",
    "heartbeat",
    "reconcile_shard",
    "admit",
    "read",
    "claim_webhooks",
    "SUBSCRIBE",
    "SSUBSCRIBE",
)

ERRORS = [
    "MISCONF Redis is configured to save RDB snapshots, but it is unable to persist to disk.",
    "NOPERM this user has no permissions to run the 'evalsha' command",
    "NOAUTH Authentication required.",
    "WRONGPASS invalid username-password pair or user is disabled.",
    "READONLY You can't write against a read only replica.",
    "OOM command not allowed when used memory > 'maxmemory'.",
    "LOADING Redis is loading the dataset in memory",
    "BUSY Redis is busy running a script.",
    "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
    "NOREPLICAS Not enough good replicas to write.",
    "CLUSTERDOWN The cluster is down",
    "TRYAGAIN Multiple keys request during rehashing of slot",
    "CROSSSLOT Keys in request don't hash to the same slot",
    "UNKILLABLE Sorry the script already executed write commands",
    "NOSCRIPT No matching script. Please use EVAL.",
    "BUSYGROUP Consumer Group name already exists",
    "NEWPREFIX an error of a version that does not exist yet",
    "ERR no upstream host",
]


async def paced(request: dict[str, Any], context: EngineContext) -> AsyncIterator[str]:
    count = TOKENS if request.get("stream") else 1
    for number in range(count):
        yield f"{number} "
        await asyncio.sleep(PAUSE_SECS)


def missing(redis: RefusingRedis) -> list[str]:
    """Return the paths of which nothing has been refused."""
    # Where a command was forbidden, a heartbeat first looks which others are, and renews no lease if that is refused.
    instead = {"reconcile_shard": "forbidden"}
    return [path for path in EVERY_PATH if not (redis.refused[path] or redis.refused[instead.get(path, path)])]


async def refused_call(edge: EdgeServer) -> bool:
    """Make the calls of a client. Return whether each of them was told to come back later."""
    calls = [
        await edge.http.post("/v1/chat/completions", json=chat("hi", MODEL, stream=False)),
        await edge.http.get("/v1/requests/whole"),
        await edge.http.get("/v1/requests/whole/stream"),
        await edge.http.get("/ready"),
    ]
    assert not [call.text for call in calls if call.status_code not in (200, 503)]
    assert not [call.text for call in calls[:-1] if call.status_code == 503 and "retry-after" not in call.headers]
    return all(call.status_code == 503 for call in calls)


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: str(error).partition(" ")[0])
async def test_everything_waits_and_goes_on(error: str) -> None:
    with EmbeddedRedis(port=0) as server:
        async with RefusingRedis(server.port) as redis, receiving() as receiver:
            settings = quick_settings(
                redis.url,
                lease_secs=LEASE_SECS,
                headers_after_secs=0.0,
                webhook_hosts="127.0.0.1",
                webhook_secret=SECRET,
                webhook_private_addresses=True,
            )
            async with edge_server(settings) as edge, worker(settings, paced) as running:
                await served(edge.tracker)
                url = str(edge.http.base_url).rstrip("/")
                async with post(edge.http, url, chat("hi", MODEL), X_Request_Id="whole") as stream:
                    await stream.read_tokens(5)
                    redis.refuse(error)
                    await wait_until(lambda: refused_call(edge), LEASE_SECS, "calls that are answered 503")
                    await wait_until(lambda: not missing(redis), LEASE_SECS, f"a refusal of {missing(redis)}")
                    redis.accept()
                    events = await stream.read()
                assert error_of(events) is None
                assert text_of(events) == "".join(f"{number} " for number in range(TOKENS))
                headers = {"X-Webhook-Url": receiver.url}
                answer = await edge.http.post(
                    "/v1/chat/completions", json=chat("hi", MODEL, stream=False), headers=headers
                )
                assert answer.status_code == 200, answer.text
                await receiver.got()
                assert set(await cluster.leases(edge.tracker.store)) == {edge.tracker.id, running.id}, "none expired"


@pytest.mark.parametrize("error", ["TRYAGAIN Multiple keys request during rehashing of slot", "ASK 1 127.0.0.1:1"])
async def test_a_node_that_refuses_commands_without_a_key_is_away(error: str) -> None:
    """Expect that these errors are not taken for those of a slot that moves."""
    with ClusterSetup(config=PER_PROCESS) as setup:
        ports = [node.port for node in setup.nodes]
        links = await Links.to_many(setup.url, ports)
        async with AsyncExitStack() as stack:
            stack.push_async_callback(links.close)
            store = await stack.enter_async_context(open_store(Settings(redis_url=links.url, redis_timeout_secs=1.0)))
            await store.ping()
            nodes = await store.commands.nodes()
            for port in ports:
                relay = await stack.enter_async_context(RefusingRedis(port))
                relay.refuse(error, "TIME", "INFO")
                links.to(port).lead_to(relay.port)

            async def refused() -> bool:
                for ask in (store.now, partial(nodes[0].execute, "INFO")):
                    try:
                        await ask()
                    except StoreUnavailable as failure:
                        if "moving" not in str(failure):
                            return False  # the connection has only been reset
                    else:
                        return False
                return True

            await wait_until(refused, what="refusals")
