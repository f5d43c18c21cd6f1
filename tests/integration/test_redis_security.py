"""Redis behind TLS, and each role as a user of its own who may do what it needs and nothing else."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

import pytest

from lifecycle.cli import main
from lifecycle.errors import StoreUnavailable
from lifecycle.local.embedded_redis import EmbeddedRedis
from lifecycle.local.redis_binary import NoUsableServer
from lifecycle.local.redis_process import free_port
from lifecycle.settings import Settings
from lifecycle.store import script_loader
from lifecycle.store.connect import open_store
from lifecycle.store.permissions import needed_commands
from lifecycle.types import Role
from tests.certificates import certify
from tests.cluster import running
from tests.conformance.calls import endless
from tests.keys import Keys
from tests.receiver import SECRET, receiving
from tests.servers import ask
from tests.sse import chat, error_of, post, resume, text_of
from tests.waiting import wait_until

USERS = (Path(__file__).parents[2] / "deploy" / "redis" / "users.acl").read_text()
ROLES = ("frontend", "worker", "operator")
FORBIDDEN = {
    "frontend": [("FLUSHALL",), ("CONFIG", "GET", "*"), ("KEYS", "*"), ("GET", "other:key"), ("ACL", "LIST")],
    "worker": [("FLUSHALL",), ("CONFIG", "GET", "*"), ("SCAN", "0"), ("GET", "other:key"), ("PUBLISH", "other", "x")],
    "operator": [("FLUSHALL",), ("CONFIG", "SET", "save", ""), ("SHUTDOWN",), ("DEL", "other:key")],
}

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not on PATH")


@dataclass(frozen=True)
class Secured:
    server: EmbeddedRedis
    port: int
    certificates: Path
    has_tls: bool  # without it, what concerns the users' rights can be tested all the same

    def url(self, user: str, *, with_certificate: bool = True, authority: str = "ca.crt") -> str:
        if not self.has_tls:
            return f"redis://{user}:{user.upper()}-PASSWORD@127.0.0.1:{self.port}/0"
        options = {"ssl_ca_certs": str(self.certificates / authority)}
        if with_certificate:
            options |= {
                "ssl_certfile": str(self.certificates / "replica.crt"),
                "ssl_keyfile": str(self.certificates / "replica.key"),
            }
        return f"rediss://{user}:{user.upper()}-PASSWORD@127.0.0.1:{self.port}/0?{urlencode(options)}"

    def settings(self, url: str) -> Settings:
        return Settings(redis_url=url, heartbeat_secs=0.25, lease_secs=1.0, sweep_secs=0.25)


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    directory = tmp_path_factory.mktemp("certificates")
    certify(directory)
    # The test itself looks through the unix socket, as nobody could from elsewhere.
    (directory / "users.acl").write_text(USERS.replace("user default off", "user default on nopass ~* &* +@all"))
    port, users = free_port(), {"aclfile": str(directory / "users.acl")}
    certified = {
        "tls-port": str(port),
        "tls-cert-file": str(directory / "redis.crt"),
        "tls-key-file": str(directory / "redis.key"),
        "tls-ca-cert-file": str(directory / "ca.crt"),
        "tls-auth-clients": "yes",
    }
    server, has_tls = EmbeddedRedis(config=users | certified), True
    try:
        server.start()
    except NoUsableServer:
        server.stop()
        server, has_tls = EmbeddedRedis(config=users | {"port": str(port)}), False
        server.start()
    try:
        yield Secured(server, port, directory, has_tls)
    finally:
        server.stop()


async def test_everything_works_for_those_who_may_do_what_the_file_says(secured: Secured, tmp_path: Path) -> None:
    keys = Keys.make(tmp_path)
    ask(secured.server, "ACL", "LOG", "RESET")
    webhooks = {
        "webhook_hosts": "127.0.0.1",
        "webhook_secret": SECRET,
        "webhook_private_addresses": True,
        "webhook_retry_secs": 0.1,
    }
    settings = secured.settings(secured.url("frontend")).model_copy(update={"api_keys": str(keys.file), **webhooks})
    async with (
        receiving() as receiver,
        running(settings, tmp_path, frontends=2, workers=0, headers=keys.bearer("ops")) as cluster,
    ):
        receiver.statuses = [500]
        a, b = cluster.frontends
        await cluster.worker(redis_url=secured.url("worker"))
        dying = await cluster.worker("paced", "tests.engines:paced", redis_url=secured.url("worker"))
        async with post(cluster.http, a.url, chat("one two"), X_Request_Id="whole", **keys.bearer("acme")) as stream:
            assert text_of(await stream.read()).split() == ["one", "two"]
        async with resume(cluster.http, b.url, "whole", "1-1") as stream:
            assert text_of(await stream.read()).split() == ["two"]
        async with post(cluster.http, a.url, endless(), X_Request_Id="cancelled") as stream:
            await stream.read_tokens(1)
            answer = await cluster.http.post(b.url + "/v1/requests/cancelled/cancel?wait_ms=10000")
            assert answer.status_code == 200
        async with post(cluster.http, a.url, endless(), X_Request_Id="left"):
            pass
        async with post(cluster.http, b.url, chat("9 60", "paced"), X_Request_Id="orphan") as stream:
            await stream.read_tokens(1)
            await dying.kill()
            error = error_of(await stream.read())
            assert error is not None
            assert error["error_type"] == "worker_lost"
        for at in (a, b):  # the second attaches
            again = await cluster.http.post(
                at.url + "/v1/chat/completions", json=chat("x", stream=False), headers={"Idempotency-Key": "once"}
            )
            assert again.status_code == 200
        reported = chat("x", stream=False)
        await cluster.http.post(a.url + "/v1/chat/completions", json=reported, headers={"X-Webhook-Url": receiver.url})
        await receiver.got(2)
        answer = await cluster.http.post(a.url + "/v1/requests/cancel", json={"status": "inflight"})
        assert answer.status_code == 200
        async with cluster.http.stream("GET", b.url + "/v1/overview?q=x") as overview:
            lines = [line async for line in islice(overview.aiter_lines(), 3)]
        assert not [line for line in lines if "trouble" in line]
        assert (await cluster.http.post(a.url + "/login", json={"key": keys.of["ops"]})).status_code == 204
        for path in ("/v1/inflight", "/v1/replicas", "/v1/requests", "/v1/models", "/metrics", "/health"):
            assert (await cluster.http.get(b.url + path)).status_code == 200

        async def operate(*command: str) -> int:
            return await asyncio.to_thread(main.run, [*command, "--redis-url", secured.url("operator")])

        async with post(cluster.http, a.url, endless(), X_Request_Id="by-hand", X_On_Disconnect="continue"):
            pass
        assert await operate("cancel", "by-hand", "--wait") == 0
        worker = next(r["id"] for r in (await cluster.get("/v1/replicas", b))["data"] if r["role"] == "worker")
        for action in ("pause", "resume"):
            assert (await cluster.http.post(f"{b.url}/v1/replicas/{worker}/{action}")).status_code == 202
            assert await operate("replicas", action, worker, "--wait") == 0
        for command in (["ps"], ["inflight"], ["replicas"], ["tail", "whole"], ["top", "--json"], ["doctor"]):
            assert await operate(*command) == 0, command
        await a.kill()

        async def expired() -> bool:
            return len((await cluster.get("/v1/replicas", b))["data"]) == 2

        await wait_until(expired)
    # redis-py says its name to every server, and takes no offence at a refusal.
    denied = [entry for entry in map(pairs, ask(secured.server, "ACL", "LOG")) if "client" not in entry["object"]]
    assert denied == []


@pytest.mark.parametrize(("role", "command"), [(role, command) for role in ROLES for command in FORBIDDEN[role]])
async def test_what_the_file_does_not_say_is_refused(secured: Secured, role: str, command: tuple[str, ...]) -> None:
    async with open_store(secured.settings(secured.url(role))) as store:
        assert await store.commands.execute("PING") == b"PONG"
        with pytest.raises(StoreUnavailable, match=r"(?i)no permissions"):
            await store.commands.execute(*command)


_EVERYBODY = "PING EVAL EVALSHA INFO SUBSCRIBE UNSUBSCRIBE WAIT"
_OF_REPLICAS = (
    "forbidden",
    "heartbeat",
    "expire",
    "leave",
    "roster",
    "reap",
    "sweep",
    "reconcile_shard",
    "read",
    "history",
    "lost_start",
    "claim_children",
    "parents",
    "cancel",
    "queued",
    "fail",
)
SCRIPTS = {
    "frontend": (
        "admit",
        "attach",
        "disconnect",
        "list",
        "browse",
        "reserve",
        "find_released",
        "secret",
        "claim_webhooks",
        "settle_webhook",
        "delete_content",
        "note_child",
        "timeline",
        "confirm",
        "track",
        "count_inflight",
        "members",
        "listed_leases",
        "instruct",
        "fate",
        "waits",
        *_OF_REPLICAS,
    ),
    "worker": ("take", "append", "finish", "requeue", "confirm", *_OF_REPLICAS),
    "operator": (
        "read",
        "cancel",
        "instruct",
        "fate",
        "list",
        "roster",
        "listed_leases",
        "count_inflight",
        "members",
        "history",
        "configure",
        "timeline",
        "confirm",
        "waits",
    ),
}
COMMANDS = {  # sent as they are, or named by a script otherwise than in its text
    "frontend": "HSCAN SSUBSCRIBE HGETALL HLEN ZSCORE ZRANGE ZREVRANGE GET SET XLEN ZREM HDEL DEL",
    "worker": "HSCAN HDEL DEL",
    "operator": "TIME HMGET HGET HGETALL HKEYS HLEN HRANDFIELD HVALS ZRANGE ZSCORE ZCOUNT GET XREAD XLEN XINFO PTTL "
    "SCAN TYPE",
}


@pytest.mark.parametrize("role", ROLES)
def test_the_file_allows_what_a_role_calls_and_no_more(role: str) -> None:
    line = next(line for line in USERS.splitlines() if line.startswith(f"user {role} "))
    sources = [script_loader.load(script).source for script in SCRIPTS[role]]
    needed = {command.split()[0] for source in sources for command in script_loader.commands_of(source)}
    if any("'MEMORY', 'USAGE'" in source for source in sources):
        needed.add("MEMORY|USAGE")  # no other of its subcommands
    needed |= {*_EVERYBODY.split(), *COMMANDS[role].split()}
    assert {word[1:].upper() for word in line.split() if word.startswith("+")} == needed - {""}


@pytest.mark.parametrize("role", Role)
def test_what_a_replica_asks_for_at_its_start_is_in_the_file(role: Role) -> None:
    line = next(line for line in USERS.splitlines() if line.startswith(f"user {role.value} "))
    allowed = {word[1:].upper() for word in line.split() if word.startswith("+")}
    assert {command.split()[0] for command in needed_commands(role)} <= allowed


def test_every_script_is_somebodys() -> None:
    assert {name for names in SCRIPTS.values() for name in names} == set(script_loader.names())


async def test_a_server_of_another_authority_or_a_client_without_certificate_is_refused(secured: Secured) -> None:
    if not secured.has_tls:
        pytest.skip("the server here has no TLS")
    for url in (secured.url("frontend", authority="stranger.crt"), secured.url("frontend", with_certificate=False)):
        async with open_store(secured.settings(url)) as store:
            with pytest.raises(StoreUnavailable) as failure:
                await store.commands.execute("PING")
            assert "PASSWORD" not in str(failure.value)


async def test_a_wrong_password_is_told_without_showing_it(secured: Secured) -> None:
    url = secured.url("frontend").replace("FRONTEND-PASSWORD", "guess")
    async with open_store(secured.settings(url)) as store:
        with pytest.raises(StoreUnavailable, match="credentials") as failure:
            await store.commands.execute("PING")
        assert "guess" not in str(failure.value)


async def islice(lines: AsyncIterator[str], count: int) -> AsyncIterator[str]:
    async for line in lines:
        if line:
            yield line
            count -= 1
        if count == 0:
            return


def pairs(flat: list[str]) -> dict[str, str]:
    return dict(zip(flat[::2], map(str, flat[1::2]), strict=True))
