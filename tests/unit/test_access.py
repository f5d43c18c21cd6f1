"""Keys at rest, log-ins, the table of calls, and where a frontend without keys may listen."""

from __future__ import annotations

import json
import os
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from frontend.app import ROUTERS
from frontend.auth.policy import RULES, AccessPolicy, Level
from frontend.auth.sessions import Sessions
from lifecycle.cli.main import run
from lifecycle.fastapi.api_key import new_key, parse_line
from lifecycle.fastapi.api_keys import Keyring, check_access, parse_keys
from lifecycle.fastapi.caller import KeyRole
from lifecycle.settings import SettingsError, as_environment, load
from lifecycle.store.transitions import Store
from tests.keys import Keys
from tests.unit.fake import fake_store

DIGEST = "0" * 64


@pytest.fixture
async def store() -> AsyncIterator[Store]:
    made = fake_store(load({"session_secs": 60}))
    yield made
    await made.commands.aclose()


def test_a_key_is_found_by_itself_only() -> None:
    key, kept = new_key("acme", KeyRole.CLIENT, 5)
    ring = Keyring(kept.line)
    found = ring.find(key)
    assert found is not None
    assert (found.caller.name, found.caller.role, found.caller.inflight_limit) == ("acme", KeyRole.CLIENT, 5)
    for wrong in ("", key[:-1], key + "x", key.upper(), kept.line, kept.digest.hex(), "\udcff", "x" * 100_000):
        assert ring.find(wrong) is None


def test_neither_the_key_nor_its_hash_shows_up_where_things_are_printed() -> None:
    key, kept = new_key("acme", KeyRole.CLIENT)
    assert key not in kept.line
    assert kept.digest.hex() not in repr(kept)
    assert kept.line not in repr(load({"api_keys": kept.line}))
    with pytest.raises(SettingsError) as failure:
        Keyring(f"{kept.line}\n{key}:x")
    assert key not in str(failure.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no keys"),
        ("# nothing\n", "no keys"),
        ("acme:client:5", "line 1"),
        (f"\na b:client::{DIGEST}", "line 2: the name"),
        (f"acme:boss::{DIGEST}", "client or operator"),
        (f"acme:client:0:{DIGEST}", "limit"),
        (f"acme:client:10001:{DIGEST}", "limit"),
        (f"acme:client:-1:{DIGEST}", "name:role"),
        (f"acme:client::{DIGEST[1:]}", "name:role"),
        (f"acme:client::{DIGEST}:", "name:role"),
        (f"acme:client::{DIGEST}:4", "name:role"),
        (f"acme:client::{DIGEST}:color=red", "line 1: 'color' is no field"),
        (f"acme:client::{DIGEST}:weight=4:weight=5", "twice"),
        *((f"acme:client::{DIGEST}:weight={w}", "weight") for w in ("", "0", "-1", "x", "nan", "1e3", "1001")),
        *((f"acme:client::{DIGEST}:priority={r}", "LOW:HIGH") for r in ("", "3", "2:1", "a:b", "0:2000000000")),
        *((f"acme:client::{DIGEST}:queue-{n}=0", f"queue-{n}") for n in ("limit", "tokens", "bytes")),
        (f"acme:client::{DIGEST}:weight=2\nacme:client::{DIGEST}", "'acme' differ"),
        (f"acme:client::{DIGEST}\nacme:operator::{DIGEST}", "'acme' differ"),
        (f"a:client::{DIGEST}\n" * 1001, "1001 keys"),
        (f"a:client::{DIGEST}\nb:operator::{DIGEST}", "'a' and 'b' have the same key"),
    ],
)
def test_a_wrong_file_is_refused_with_what_is_wrong(text: str, said: str) -> None:
    with pytest.raises(SettingsError, match="LIFECYCLE_API_KEYS") as failure:
        parse_keys(text)
    assert said in str(failure.value)
    assert "\n" not in str(failure.value)


def test_two_keys_of_one_name_are_how_a_key_is_replaced() -> None:
    (old, kept_old), (new, kept_new) = (new_key("acme", KeyRole.CLIENT, 2) for _ in range(2))
    ring = Keyring(f"{kept_old.line},{kept_new.line}")
    assert ring.find(old).caller == ring.find(new).caller  # type: ignore[union-attr]


def test_a_file_that_could_not_be_read_is_taken_once_it_can(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = Keys.make(tmp_path)
    ring = Keyring(str(keys.file))
    other, kept = new_key("other", KeyRole.OPERATOR)

    def forbidden(file: Path) -> str:
        raise SettingsError(f"{file} cannot be read: Permission denied")

    keys.file.write_text(kept.line)
    with monkeypatch.context() as unreadable:  # the tests may run as a user who can read everything
        unreadable.setattr("lifecycle.fastapi.api_keys._read", forbidden)
        ring.refresh()
    assert ring.find(other) is None
    keys.file.chmod(0o640)
    ring.refresh()
    assert ring.find(other) is not None


def test_a_changed_file_is_taken_and_a_wrong_one_is_not(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    keys = Keys.make(tmp_path)
    ring = Keyring(str(keys.file))
    other, kept = new_key("other", KeyRole.OPERATOR)

    def replace(text: str) -> None:
        fresh = tmp_path / "fresh"
        fresh.write_text(text)
        os.replace(fresh, keys.file)
        ring.refresh()

    replace(kept.line)
    assert ring.find(other) is not None
    assert ring.find(keys.of["acme"]) is None
    replace("rubbish")
    assert ring.find(other) is not None
    assert "the API keys were not reloaded" in caplog.text
    keys.file.unlink()
    ring.refresh()
    assert ring.find(other) is not None


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="nosuch cannot be read: No such file"):
        Keyring(str(tmp_path / "nosuch"))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_without_keys_it_listens_on_loopback(host: str) -> None:
    check_access(load(), host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "192.0.2.1", "example.org"])
def test_elsewhere_it_takes_keys_or_a_word(host: str, capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("frontend", "up"):
        assert run([command, "--host", host, "--redis-url", "redis://127.0.0.1:1/0"]) == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        assert "LIFECYCLE_API_KEYS" in said
        assert "LIFECYCLE_ALLOW_ANONYMOUS=true" in said
    check_access(load({"allow_anonymous": True}), host)
    check_access(load({"api_keys": new_key("acme", KeyRole.CLIENT)[1].line}), host)


def test_wrong_keys_are_a_wrong_setting(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["frontend", "--api-keys", "acme:client:", "--redis-url", "redis://127.0.0.1:1/0"]) == 2
    assert "LIFECYCLE_API_KEYS, line 1" in capsys.readouterr().err


def test_keys_new_prints_a_key_and_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["keys", "new", "--name", "acme", "--role", "client", "--inflight-limit", "20"]) == 0
    shown = [line.strip() for line in capsys.readouterr().out.splitlines() if line.startswith("  ")]
    assert parse_line(shown[1]).caller.inflight_limit == 20
    assert Keyring(shown[1]).find(shown[0]) is not None
    assert run(["keys", "new", "--name", "ops", "--role", "operator", "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert Keyring(made["line"]).find(made["key"]) is not None
    assert run(["keys", "new", "--name", "a:b"]) == 2
    assert run(["keys", "new", "--name", "a", "--role", "boss"]) == 2


def test_what_a_key_grants_in_the_queue_is_in_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    given = ["--weight", "4", "--priority", "-10:10", "--queue-limit", "5", "--queue-tokens", "6", "--queue-bytes", "7"]
    assert run(["keys", "new", "--name", "acme", *given, "--json"]) == 0
    line = json.loads(capsys.readouterr().out)["line"]
    caller = parse_line(line).caller
    assert line.endswith(":weight=4:priority=-10:10:queue-limit=5:queue-tokens=6:queue-bytes=7")
    assert (caller.weight, caller.priority, caller.queue_share) == (4, (-10, 10), (5, 6, 7))
    assert [caller.priority.clamp(wanted) for wanted in (-11, 3, 99)] == [-10, 3, 10]
    assert parse_line(f"a:client::{DIGEST}:priority=0:3:weight=0.5").caller.weight == 0.5  # in any order
    assert parse_line(f"a:client::{DIGEST}:weight=0.3333333333").caller.weight == 0.3333333333
    assert new_key("a", KeyRole.CLIENT, weight=1 / 3)[1].line.endswith(":weight=0.333333")


@pytest.mark.parametrize("wrong", [["--weight", "0"], ["--weight", "nan"], ["--priority", "5:1"], ["--priority", "5"]])
def test_a_wrong_grant_is_one_clear_line(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["keys", "new", "--name", "acme", *wrong]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert wrong[0].strip("-") in said


def test_a_line_of_the_first_version_grants_nothing_in_the_queue() -> None:
    caller = parse_line(f"acme:client:5:{DIGEST}").caller
    assert (caller.inflight_limit, caller.weight, caller.priority, caller.queue_share) == (5, 1, (0, 0), (0, 0, 0))


def test_children_are_given_the_same_keys() -> None:
    line = new_key("acme", KeyRole.CLIENT)[1].line
    assert as_environment(load({"api_keys": line}))["LIFECYCLE_API_KEYS"] == line


async def test_a_log_in_holds_at_a_frontend_that_was_started_later(store: Store) -> None:
    _, kept = new_key("ops", KeyRole.OPERATOR)
    cookie = await Sessions(Keyring(kept.line), store).begin(kept)
    assert await Sessions(Keyring(kept.line), store).caller(cookie) == kept.caller


async def test_a_log_in_ends_with_its_time_and_with_its_key(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    (_, kept), (_, other) = new_key("ops", KeyRole.OPERATOR), new_key("ops", KeyRole.OPERATOR)
    cookie = await Sessions(Keyring(kept.line), store).begin(kept)
    assert await Sessions(Keyring(other.line), store).caller(cookie) is None
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 61)
    assert await Sessions(Keyring(kept.line), store).caller(cookie) is None


async def test_who_knows_the_file_of_keys_cannot_sign(store: Store) -> None:
    """The secret in Redis is needed too. A frontend that remembers one which Redis has lost takes the new one."""
    _, kept = new_key("ops", KeyRole.OPERATOR)
    sessions = Sessions(Keyring(kept.line), store)
    lost = await sessions.begin(kept)
    await store.command("DEL", store.keys.control + "secret")
    fresh = await Sessions(Keyring(kept.line), store).begin(kept)
    sessions._fetched_at -= 2
    assert await sessions.caller(fresh) == kept.caller
    assert await sessions.caller(lost) is None


@pytest.mark.parametrize("cookie", ["", ":", "::", "ops", "ops:1:", "ops:9999999999:x", "ops:²:x", "é:9:é", "x" * 9999])
async def test_what_is_no_log_in_is_nobodys(store: Store, cookie: str) -> None:
    assert await Sessions(Keyring(new_key("ops", KeyRole.OPERATOR)[1].line), store).caller(cookie) is None


def test_every_route_is_in_the_table_and_the_table_names_no_other() -> None:
    served = {
        (method, route.path)
        for router in ROUTERS
        for route in router.routes
        if isinstance(route, APIRoute)
        for method in route.methods or ()
    }
    listed = {(method, rule.path) for rule in RULES for method in rule.methods.split()}
    assert listed == served


@pytest.mark.parametrize(
    ("method", "path", "level"),
    [
        ("HEAD", "/live", Level.ANYBODY),
        ("GET", "/v1/models/a/b", Level.CLIENT),
        ("GET", "/v1/requests/a", Level.CLIENT),
        ("GET", "/v1/requests/a\n", Level.CLIENT),
        ("GET", "/metrics", Level.OPERATOR),
    ],
)
async def test_a_call_has_the_level_of_its_route(
    make: Callable[..., AccessPolicy], method: str, path: str, level: Level
) -> None:
    assert make().level(method, path) is level


@pytest.mark.parametrize(
    ("method", "path", "status", "allow"),
    [
        ("POST", "/live", 405, "GET"),
        ("PATCH", "/v1/requests/a", 405, "DELETE, GET"),
        ("OPTIONS", "/v1/chat/completions", 405, "POST"),
        ("GET", "/v1/requests/a/b", 404, None),
        ("GET", "/unknown", 404, None),
        ("GET", "//live", 404, None),
    ],
)
async def test_what_does_not_exist_has_no_level(
    make: Callable[..., AccessPolicy], method: str, path: str, status: int, allow: str | None
) -> None:
    with pytest.raises(HTTPException) as refusal:
        make().level(method, path)
    assert (refusal.value.status_code, (refusal.value.headers or {}).get("Allow")) == (status, allow)


async def test_metrics_can_be_everybodys(make: Callable[..., AccessPolicy]) -> None:
    assert make(public_metrics=True).level("GET", "/metrics") is Level.ANYBODY


@pytest.fixture
async def make() -> AsyncIterator[Callable[..., AccessPolicy]]:
    stores: list[Store] = []

    def access(**settings: Any) -> AccessPolicy:
        stores.append(fake_store(load(settings)))
        return AccessPolicy(Keyring(new_key("ops", KeyRole.OPERATOR)[1].line), stores[-1])

    yield access
    for made in stores:
        await made.commands.aclose()
