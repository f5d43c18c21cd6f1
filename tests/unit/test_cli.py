"""The command line without a cluster: usage, exit codes, settings as flags, what output looks like."""

from __future__ import annotations

import inspect
import json
import logging
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import typer

import lifecycle
from lifecycle.cli import output
from lifecycle.cli.doctor import redis_server
from lifecycle.cli.doctor.finding import Level
from lifecycle.cli.flags import EVERY, OPERATOR, read_settings, with_settings
from lifecycle.cli.listing import PS_HEADS, request_row
from lifecycle.cli.logs import HumanFormatter, JsonFormatter
from lifecycle.cli.main import app, run
from lifecycle.cli.options import seconds
from lifecycle.cli.up import hints
from lifecycle.settings import Settings, SettingsError, environment_name, load
from lifecycle.telemetry import request_log
from lifecycle.types import RequestRecord, Status

OPERATORS = ("ps", "inflight", "queue", "cancel", "tail", "why", "top", "doctor")
OUT_OF_REACH = ["--redis-url", "redis://127.0.0.1:1/0"]
RECORD = RequestRecord.from_hash(
    {
        "id": "r1",
        "model": "m",
        "endpoint": "completions",
        "request_type": "stream",
        "status": "running",
        "on_disconnect": "cancel",
        "frontend": "f",
        "worker": "w",
        "attempt": "2",
        "created_at": "100",
        "started_at": "101",
        "last_token_at": "107.5",
        "output_tokens": "42",
    }
)


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in EVERY:
        monkeypatch.delenv(environment_name(name), raising=False)
    monkeypatch.setattr(sys, "argv", ["lifecycle"])


def failing(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """The exit code and the one line that goes with it."""
    code = run(arguments)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1, err
    return code, err


def test_alone_it_shows_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([]) == 0
    shown = capsys.readouterr().out
    assert all(f"  {name} " in shown for name in ("up", "frontend", "worker", *OPERATORS))


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"lifecycle {lifecycle.__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["nosuch"], "nosuch"),
        (["ps", "--nosuch"], "--nosuch"),
        (["ps", "--limit", "0"], "--limit"),
        (["ps", "--status", "odd"], "--status"),
        (["cancel"], "IDs"),
        (["cancel", "--dry-run"], "IDs"),
        (["cancel", "r1", "--model", "m"], "not both"),
        (["cancel", "r1", "--dry-run"], "--dry-run"),
        (["cancel", "--model", "", "--older-than", "10m"], "--model"),
        (["cancel", "--older-than", "a while"], "--older-than"),
        (["cancel", "--older-than", ""], "--older-than"),
        (["cancel", "--status", "completed"], "--status"),
        (["cancel", "r1", "--mode", "maim"], "--mode"),
        (["tail", "r1", "--after", "yesterday"], "--after"),
        (["worker", "--model", "m"], "--engine"),
        (["worker", "--model", "m", "--engine", "nosuch"], "nosuch"),
        (["worker", "--model", "m", "--engine", "echo", "--concurrency", "0"], "LIFECYCLE_CONCURRENCY"),
        (["worker", "--model", "m", "--engine", "echo", "--concurrency", "automatic"], "from 1 to 100000, or auto"),
        (["worker", "--engine", "echo", "--concurrency-min", "9", "--concurrency-max", "8"], "CONCURRENCY_MIN=9 must"),
        (["worker", "--model", "m", "--engine", "echo", "--max-output-bytes", "1000"], "LIFECYCLE_MAX_OUTPUT_BYTES"),
        (["worker", "--model", "m", "--engine", "echo", "--max-output-bytes", "1e12"], "LIFECYCLE_MAX_OUTPUT_BYTES"),
        (["frontend", "--reader-buffer-bytes", "1023"], "LIFECYCLE_READER_BUFFER_BYTES"),
        (["frontend", "--reader-buffer-bytes", "1MiB"], "LIFECYCLE_READER_BUFFER_BYTES"),
        (["frontend", "--lease-secs", "1"], "LIFECYCLE_LEASE_SECS"),
        (["frontend", "--port", "70000"], "--port"),
        (["up", "--frontends", "0"], "--frontends"),
        (["up", "--port", "65535"], "--port"),
        (["up", "--on-disconnect", "sulk"], "LIFECYCLE_ON_DISCONNECT"),
        (["up", "--model", "m", "--model", " "], "--model"),
        (["up", "--engine", "openai"], "LIFECYCLE_OPENAI_BASE_URL"),
        (["up", "--forward-headers", "x y"], "LIFECYCLE_FORWARD_HEADERS"),
        (["ps", "--redis-url", "nosuch://here"], "LIFECYCLE_REDIS_URL"),
    ],
)
def test_wrong_usage_is_one_line_that_names_it(
    capsys: pytest.CaptureFixture[str], arguments: list[str], named: str
) -> None:
    code, line = failing(capsys, *arguments)
    assert code == 2
    assert named in line


def test_a_wrong_setting_in_the_environment_is_named_too(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIFECYCLE_SHARDS", "many")
    code, line = failing(capsys, "ps")
    assert (code, "LIFECYCLE_SHARDS" in line) == (2, True)


@pytest.mark.parametrize(
    ("age", "secs"), [("90", 90), ("90s", 90), ("0.5s", 0.5), ("10m", 600), ("1h30m", 5400), ("2D", 172_800), ("0", 0)]
)
def test_ages(age: str, secs: float) -> None:
    assert float(seconds(age) or "") == secs


@pytest.mark.parametrize("age", ["m", "10 minutes", "-5s", "1m1h", "nan", " "])
def test_what_is_no_age(age: str) -> None:
    with pytest.raises(typer.BadParameter):
        seconds(age)


@pytest.mark.parametrize("command", OPERATORS)
@pytest.mark.parametrize("json_too", [[], ["--json"]])
def test_redis_out_of_reach_is_one_line(capsys: pytest.CaptureFixture[str], command: str, json_too: list[str]) -> None:
    ids = ["r1"] if command in ("cancel", "tail", "why") else []
    code, line = failing(capsys, command, *ids, *OUT_OF_REACH, *json_too)
    assert code == 1
    assert "Redis" in line


def test_up_without_a_model_needs_an_upstream_that_lists_some(capsys: pytest.CaptureFixture[str]) -> None:
    code, line = failing(capsys, "up", "--port", "0", "--engine", "openai", "--upstream", "http://127.0.0.1:1/v1")
    assert code == 1
    assert "http://127.0.0.1:1/v1 cannot be listed" in line
    assert "pass --model" in line


def test_a_password_in_a_malformed_url_is_not_shown(capsys: pytest.CaptureFixture[str]) -> None:
    _, line = failing(capsys, "ps", "--redis-url", "ps://:secret@host")
    assert "secret" not in line


@pytest.mark.parametrize("command", ["up", "frontend", "worker"])
def test_every_setting_is_a_flag_of_what_runs(capsys: pytest.CaptureFixture[str], command: str) -> None:
    assert run([command, "--help"]) == 0
    shown = capsys.readouterr().out
    for name in Settings.model_fields:
        assert f"--{name.replace('_', '-')} " in shown
        assert environment_name(name) in shown


@pytest.mark.parametrize("command", OPERATORS)
def test_operators_have_the_settings_that_concern_them(capsys: pytest.CaptureFixture[str], command: str) -> None:
    assert run([command, "--help"]) == 0
    shown = capsys.readouterr().out
    assert all(f"--{name.replace('_', '-')} " in shown for name in OPERATOR)
    assert "--json" in shown


def test_every_flag_reaches_its_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    got: list[Settings] = []

    @with_settings()
    def command(settings: Settings) -> int:
        got.append(settings)
        return 0

    assert set(inspect.signature(command).parameters) == set(Settings.model_fields)
    monkeypatch.setenv("LIFECYCLE_MAX_ATTEMPTS", "9")
    monkeypatch.setenv("LIFECYCLE_SHARDS", "2")
    given: dict[str, Any] = dict.fromkeys(Settings.model_fields)
    command(**{**given, "shards": "4", "queue_without_workers": True, "backend_stream_timeout_secs": "junk"})
    assert (got[0].shards, got[0].max_attempts, got[0].queue_without_workers) == (4, 9, True)
    assert got[0].backend_stream_timeout_secs == 0


def test_the_commands_take_what_they_generate() -> None:
    names = {command.name or command.callback.__name__ for command in app.registered_commands if command.callback}
    assert names == {"up", "frontend", "worker", *OPERATORS}


def test_settings_of_a_malformed_redis_url_are_refused() -> None:
    with pytest.raises(SettingsError, match="LIFECYCLE_REDIS_URL"):
        read_settings({"redis_url": "http://example.org"})


@pytest.mark.parametrize(
    ("secs", "shown"),
    [
        (None, "-"),
        (-0.2, "0.0s"),
        (0.44, "0.4s"),
        (9.96, "10s"),
        (59.4, "59s"),
        (59.6, "1m00s"),
        (125, "2m05s"),
        (3599.7, "1h00m"),
        (86_399, "23h59m"),
        (86_400 * 3 + 3600 * 4, "3d04h"),
    ],
)
def test_duration(secs: float | None, shown: str) -> None:
    assert output.duration(secs) == shown


def test_a_table_lines_up_and_numbers_are_to_the_right() -> None:
    lines = output.table(["ID", "TOKENS"], [["r1", "7"], ["request-2", "1234"], ["x\x1b[2J\n", ""]])
    assert lines == ["ID         TOKENS", "r1              7", "request-2    1234", "x�[2J�          -"]
    assert output.table(["ID", "TOKENS"], []) == ["ID  TOKENS"]


def test_a_row_of_ps() -> None:
    row = [str(value[0]) if isinstance(value, output.Cell) else value for value in request_row(RECORD, now=110.0)]
    assert dict(zip(PS_HEADS, row, strict=True)) == {
        "ID": "r1",
        "MODEL": "m",
        "ENDPOINT": "completions",
        "STATUS": "running",
        "AGE": "10s",
        "TOKENS": "42",
        "SILENCE": "2.5s",
        "FRONTEND": "f",
        "WORKER": "w",
        "ATTEMPT": "2",
        "OWNER": "-",
    }
    assert output.status_cell(RECORD._replace(cancel_mode="kill")).text == "running (kill)"


def test_colours_only_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal:
        def isatty(self) -> bool:
            return True

    monkeypatch.delenv("NO_COLOR", raising=False)
    assert output.use_color(Terminal())  # type: ignore[arg-type]
    monkeypatch.setenv("NO_COLOR", "1")
    assert not output.use_color(Terminal())  # type: ignore[arg-type]
    assert output.paint("x", output.RED) == "x"


@pytest.mark.parametrize(
    ("line", "offered"), [("lifecycle can", ["cancel"]), ("lifecycle cancel --old", ["--older-than"])]
)
def test_a_shell_completes_commands_and_options(line: str, offered: list[str]) -> None:
    words = {"COMP_WORDS": line, "COMP_CWORD": str(len(line.split()) - 1), "_LIFECYCLE_COMPLETE": "complete_bash"}
    command = [sys.executable, "-c", "from lifecycle.cli.main import main; main()"]
    shown = subprocess.run(command, env={**os.environ, **words}, capture_output=True, text=True, check=True, timeout=60)
    assert shown.stdout.split() == offered


def test_log_lines_carry_the_request() -> None:
    record = logging.LogRecord("lifecycle.request", logging.INFO, __file__, 1, "request ended", None, None)
    end = RECORD._replace(
        status=Status.FAILED, error_type="deadline", error_message="60 s\nare over", finished_at=160.5
    )
    record.request = request_log.fields(end, "a" * 32)
    line = json.loads(JsonFormatter().format(record))
    assert (line["message"], line["logger"], line["level"]) == ("request ended", "lifecycle.request", "info")
    assert {**line, "time": ""} == {
        "time": "",
        "level": "info",
        "logger": "lifecycle.request",
        "message": "request ended",
        "request_id": "r1",
        "model": "m",
        "endpoint": "completions",
        "request_type": "stream",
        "status": "failed",
        "error_type": "deadline",
        "error_message": "60 s\nare over",
        "output_tokens": 42,
        "queue_secs": 1.0,
        "duration_secs": 60.5,
        "attempt": 2,
        "frontend": "f",
        "worker": "w",
        "trace_id": "a" * 32,
    }
    human = HumanFormatter().format(record)
    assert "\n" not in human
    assert "request ended r1 model=m endpoint=completions request_type=stream status=failed" in human
    assert r"error_message='60 s\nare over'" in human
    assert "duration_secs=60.5" in human


@pytest.mark.slow
def test_the_log_format_is_a_setting(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("LIFECYCLE_LOG_FORMAT", "xml")
    assert run(["worker", "--model", "m", "--engine", "echo"]) == 2
    assert "'xml' is not one of 'auto', 'human', 'json'" in capsys.readouterr().err
    monkeypatch.setenv("LIFECYCLE_LOG_FORMAT", "json")
    assert run(["worker", "--model", "m", "--engine", "echo", "--redis-url", "redis://127.0.0.1:1/0"]) == 1
    assert not isinstance(logging.root.handlers[0].formatter, HumanFormatter)


def test_an_exception_stays_on_its_json_line() -> None:
    try:
        raise RuntimeError("broken")
    except RuntimeError:
        record = logging.LogRecord("x", logging.ERROR, __file__, 1, "no", None, sys.exc_info())
    line = JsonFormatter().format(record)
    assert "\n" not in line
    assert "RuntimeError: broken" in json.loads(line)["exception"]


def test_the_demo_is_long_enough_to_cancel_it_by_hand() -> None:
    body = hints.demo_body("m", "echo", load({"echo_tokens_per_sec": 20}))
    words = len(body["messages"][0]["content"].split()) * body["echo_repeat"]
    assert 30 < words / 20 < 120
    assert "echo_repeat" not in hints.demo_body("m", "openai", load())


def test_the_hints_can_be_copied_whether_or_not_we_are_on_the_path(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    installed = tmp_path / "lifecycle"
    installed.touch(0o755)
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", "/nowhere")
    assert hints.program() == str(installed)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert hints.program() == "lifecycle"


_ONLINE = "ip=127.0.0.1,port=6380,state=online,offset=14,lag=0"


@pytest.mark.parametrize(
    ("check", "info", "level"),
    [
        (redis_server.version, {"redis_version": "7.0.15"}, Level.OK),
        (redis_server.version, {"redis_version": "7.2.4", "valkey_version": "9.1.0"}, Level.OK),
        (redis_server.version, {"redis_version": "6.2.14"}, Level.FAIL),
        (redis_server.version, {}, Level.FAIL),
        (redis_server.role, {"role": "slave"}, Level.FAIL),
        (redis_server.eviction, {"maxmemory_policy": "noeviction", "maxmemory": "10"}, Level.OK),
        (redis_server.eviction, {"maxmemory_policy": "allkeys-lru", "maxmemory": "10"}, Level.FAIL),
        (redis_server.eviction, {"maxmemory_policy": "allkeys-lru", "maxmemory": "0"}, Level.WARN),
        (redis_server.memory, {"used_memory": "10", "maxmemory": "0"}, Level.OK),
        (redis_server.memory, {"used_memory": "80", "maxmemory": "100"}, Level.WARN),
        (redis_server.memory, {"used_memory": "100", "maxmemory": "100"}, Level.FAIL),
        (redis_server.persistence, {"aof_enabled": "1"}, Level.OK),
        (redis_server.clients, {"connected_clients": "9", "maxclients": "10000"}, Level.OK),
        (redis_server.clients, {"connected_clients": "9"}, Level.OK),
        (redis_server.clients, {"connected_clients": "8", "maxclients": "10"}, Level.WARN),
        (redis_server.clients, {"connected_clients": "10", "maxclients": "10"}, Level.FAIL),
        (redis_server.persistence, {"aof_enabled": "0"}, Level.WARN),
        (redis_server.persistence, {"rdb_last_bgsave_status": "err"}, Level.FAIL),
        (partial(redis_server.waiting, wanted=1), {"connected_slaves": "1", "slave0": _ONLINE}, Level.OK),
        (partial(redis_server.waiting, wanted=2), {"connected_slaves": "1", "slave0": _ONLINE}, Level.FAIL),
        (partial(redis_server.waiting, wanted=1), {"slave0": "ip=::1,port=1,state=wait_bgsave,lag=0"}, Level.FAIL),
        (partial(redis_server.waiting, wanted=1), {"slave_expires_tracked_keys": "state=online"}, Level.FAIL),
    ],
)
def test_what_doctor_makes_of_a_server(check: Any, info: dict[str, str], level: Level) -> None:
    finding = check(info)
    assert finding.level is level
    assert bool(finding.advice) == (level is not Level.OK)


@pytest.mark.parametrize(
    ("limits", "waiting", "level"),
    [
        ((0,), 0, Level.OK),
        ((200,), 74, Level.OK),
        ((200,), 75, Level.WARN),
        ((199,), 0, Level.WARN),
        ((100, 100), 0, Level.OK),
        ((0, 10), 0, Level.OK),
    ],
)
def test_what_doctor_makes_of_the_bodies_that_wait(limits: tuple[int, ...], waiting: int, level: Level) -> None:
    finding = redis_server.bodies([{"maxmemory": str(limit)} for limit in limits], waiting, 100)
    assert finding.level is level
    assert bool(finding.advice) == (level is not Level.OK)
