"""A new password of Redis and new certificates are used without a restart, and streams go on meanwhile."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from lifecycle.cli import main
from lifecycle.local.embedded_redis import EmbeddedRedis
from lifecycle.local.redis_binary import NoUsableServer
from lifecycle.local.redis_process import free_port
from lifecycle.settings import Settings
from tests.certificates import certify
from tests.cluster import Cluster, running
from tests.sentinel_setup import SentinelSetup
from tests.servers import ask
from tests.sse import chat, error_of, post, text_of
from tests.waiting import wait_until

LEASE_SECS = 3.0
WORDS = "word " * 60  # three seconds of the echo engine
QUICK: dict[str, Any] = {
    "heartbeat_secs": 0.25,
    "lease_secs": LEASE_SECS,
    "sweep_secs": 0.25,
    "drain_timeout_secs": 1.0,
    "echo_tokens_per_sec": 20.0,
}


def replace(file: Path, content: str) -> None:
    """Write a file as those do that rotate secrets: a reader sees the old content or the new one."""
    new = file.with_suffix(".new")
    new.write_text(content)
    os.replace(new, file)


async def is_ready(cluster: Cluster) -> bool:
    return (await cluster.http.get(cluster.frontends[0].url + "/ready")).status_code == 200


async def ids(cluster: Cluster) -> set[str]:
    return {replica["id"] for replica in (await cluster.get("/v1/replicas"))["data"]}


async def test_a_new_password_is_read_from_its_file(tmp_path: Path) -> None:
    password = tmp_path / "password"
    replace(password, "the old one\n")
    with EmbeddedRedis(port=0) as server:
        ask(server, "ACL", "SETUSER", "replica", "on", ">the old one", "~*", "&*", "+@all")
        url = f"redis://replica@127.0.0.1:{server.port}/0"
        settings = Settings(redis_url=url, redis_password_file=str(password), **QUICK)
        async with running(settings, tmp_path) as cluster:
            before = await ids(cluster)
            async with post(cluster.http, cluster.frontends[0].url, chat(WORDS)) as stream:
                await stream.read_tokens(2)
                ask(server, "ACL", "SETUSER", "replica", "resetpass", ">the new one")
                ask(server, "CLIENT", "KILL", "USER", "replica")

                async def away() -> bool:
                    return not await is_ready(cluster)

                await wait_until(away, LEASE_SECS, "a frontend that is not ready")
                replace(password, "the new one\n")
                events = await stream.read()
            assert error_of(events) is None
            assert text_of(events).split() == WORDS.split()
            await wait_until(lambda: is_ready(cluster), what="a frontend that is ready")
            assert await ids(cluster) == before
            logs = [process.log.read_text() for process in (*cluster.frontends, *cluster.workers)]
    assert not [log for log in logs if "the old one" in log or "the new one" in log]


async def test_a_new_password_of_the_sentinels_is_read_from_its_file(tmp_path: Path) -> None:
    password = tmp_path / "password"
    replace(password, "the old one\n")
    with SentinelSetup() as setup:
        for sentinel in setup.sentinels:
            ask(sentinel, "ACL", "SETUSER", "finder", "on", ">the old one", "-@all", "+sentinel|masters")
        url = setup.url + "?sentinel_username=finder"
        settings = Settings(redis_url=url, redis_sentinel_password_file=str(password), **QUICK)
        async with running(settings, tmp_path) as cluster:
            before = await ids(cluster)
            async with post(cluster.http, cluster.frontends[0].url, chat(WORDS)) as stream:
                await stream.read_tokens(2)
                for sentinel in setup.sentinels:
                    ask(sentinel, "ACL", "SETUSER", "finder", "resetpass", ">the new one")
                    ask(sentinel, "CLIENT", "KILL", "USER", "finder")
                for kind in ("normal", "pubsub"):
                    ask(setup.primary, "CLIENT", "KILL", "TYPE", kind)

                async def away() -> bool:
                    return not await is_ready(cluster)

                await wait_until(away, LEASE_SECS, "a frontend that is not ready")
                replace(password, "the new one\n")
                events = await stream.read()
            assert error_of(events) is None
            assert text_of(events).split() == WORDS.split()
            await wait_until(lambda: is_ready(cluster), what="a frontend that is ready")
            assert await ids(cluster) == before
            logs = [process.log.read_text() for process in (*cluster.frontends, *cluster.workers)]
    assert not [log for log in logs if "the old one" in log or "the new one" in log]


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not on PATH")
async def test_new_certificates_are_read_at_the_next_connect(tmp_path: Path) -> None:
    """Redis gets a certificate of another authority, and the replicas get theirs a moment later."""
    old, new, server_has, replicas_have = (tmp_path / name for name in ("old", "new", "server", "replicas"))
    for directory in (old, new):
        directory.mkdir()
        certify(directory)
    for directory in (server_has, replicas_have):
        shutil.copytree(old, directory)
    port = free_port()
    files = {"cert-file": "redis.crt", "key-file": "redis.key", "ca-cert-file": "ca.crt"}
    tls = {f"tls-{name}": str(server_has / file) for name, file in files.items()}
    server = EmbeddedRedis(config={"tls-port": str(port), "tls-auth-clients": "yes", **tls})
    try:
        server.start()
    except NoUsableServer as failure:
        server.stop()
        pytest.skip(f"the server here has no TLS: {failure}")
    options = {"ssl_ca_certs": "ca.crt", "ssl_certfile": "replica.crt", "ssl_keyfile": "replica.key"}
    query = urlencode({name: str(replicas_have / file) for name, file in options.items()})
    settings = Settings(redis_url=f"rediss://127.0.0.1:{port}/0?{query}", **QUICK)
    try:
        async with running(settings, tmp_path) as cluster:
            before = await ids(cluster)
            async with post(cluster.http, cluster.frontends[0].url, chat(WORDS)) as stream:
                await stream.read_tokens(2)
                shutil.copytree(new, server_has, dirs_exist_ok=True)
                ask(server, "CONFIG", "SET", *(word for item in tls.items() for word in item))
                ask(server, "CLIENT", "KILL", "TYPE", "normal")
                ask(server, "CLIENT", "KILL", "TYPE", "pubsub")

                async def away() -> bool:
                    return not await is_ready(cluster)

                await wait_until(away, LEASE_SECS, "a frontend that is not ready")
                shutil.copytree(new, replicas_have, dirs_exist_ok=True)
                events = await stream.read()
            assert error_of(events) is None
            assert text_of(events).split() == WORDS.split()
            await wait_until(lambda: is_ready(cluster), what="a frontend that is ready")
            assert await ids(cluster) == before
    finally:
        server.stop()


_PASSWORD, _OF_SENTINELS = "--redis-password-file", "--redis-sentinel-password-file"


@pytest.mark.parametrize(
    ("content", "url", "flag", "says"),
    [
        (None, "redis://127.0.0.1:1/0", _PASSWORD, "LIFECYCLE_REDIS_PASSWORD_FILE"),
        ("\n", "redis://127.0.0.1:1/0", _PASSWORD, "no password"),
        ("topsecret", "redis://:hidden@127.0.0.1:1/0", _PASSWORD, "leave out one"),
        ("topsecret", "redis+sentinel://:hidden@127.0.0.1:1/main", _PASSWORD, "leave out one"),
        (None, "redis+sentinel://127.0.0.1:1/main", _OF_SENTINELS, "LIFECYCLE_REDIS_SENTINEL_PASSWORD_FILE"),
        ("topsecret", "redis+sentinel://127.0.0.1:1/main?sentinel_password=hidden", _OF_SENTINELS, "leave out one"),
        ("topsecret", "redis+cluster://127.0.0.1:1", _OF_SENTINELS, "names no Sentinels"),
    ],
)
def test_a_wrong_password_file_stops_the_start(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str | None, url: str, flag: str, says: str
) -> None:
    file = tmp_path / "password"
    if content is not None:
        file.write_text(content)
    assert main.run(["ps", "--redis-url", url, flag, str(file)]) == 2
    said = capsys.readouterr().err
    assert says in said
    assert len(said.splitlines()) == 1
    assert "hidden" not in said
    assert "topsecret" not in said
