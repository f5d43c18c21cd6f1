"""Secrets of any URL, of the upstream's key and of the exporter's headers are in no log line and no message."""

from __future__ import annotations

import logging

import pytest

from lifecycle.cli import main, output
from lifecycle.cli.logs import HumanFormatter, JsonFormatter
from lifecycle.cli.scrubbing import scrubbed

SECRET = "hunter2"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("LIFECYCLE_REDIS_URL", f"redis://user:{SECRET}@host/0"),
        ("LIFECYCLE_REDIS_URL", f"redis://:{SECRET}#rest@host/0"),
        ("LIFECYCLE_REDIS_URL", f"redis://host/0?password={SECRET}"),
        ("LIFECYCLE_REDIS_URL", f"unix:///run/redis.sock?db=1&password={SECRET}"),
        ("LIFECYCLE_REDIS_URL", f"redis+sentinel://a:1,b:2/main?sentinel_password={SECRET}"),
        ("LIFECYCLE_REDIS_URL", f"rediss+sentinel://user:{SECRET}@a:1,b:2/main?ssl_ca_certs=x"),
        ("LIFECYCLE_REDIS_URL", f"rediss+cluster://a:1,b:2?ssl_password={SECRET}"),
        ("LIFECYCLE_OPENAI_BASE_URL", f"http://bob:{SECRET}@host/v1"),
        ("LIFECYCLE_OPENAI_BASE_URL", f"http://{SECRET}@host/v1"),
        ("LIFECYCLE_OPENAI_BASE_URL", f"http://host/v1?api-key={SECRET}"),
        ("LIFECYCLE_OPENAI_BASE_URL", "http://host/v1?subscription_key=h%75nter2"),
        ("LIFECYCLE_WEBHOOK_URL", f"https://bob:{SECRET}@host/hook"),
        ("LIFECYCLE_WEBHOOK_URL", f"https://host/hook?token={SECRET}"),
        ("LIFECYCLE_WEBHOOK_URL", f"https://host/hook?sig={SECRET}&v=1"),
        ("LIFECYCLE_OPENAI_BASE_URL", "http://bob:h%75nter2@host/v1"),
        ("LIFECYCLE_OPENAI_API_KEY", SECRET),
        ("LIFECYCLE_WEBHOOK_SECRET", f"whsec_1 {SECRET}"),
        ("HTTPS_PROXY", f"http://bob:{SECRET}/x@proxy:3128"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://bob:{SECRET}@collector:4318"),
        ("OTEL_EXPORTER_OTLP_HEADERS", f"authorization=Bearer {SECRET}"),
        ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", f"Authorization {SECRET}"),
    ],
)
def test_what_a_library_says_is_shown_without_the_secret(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    said = f"Failed to parse {SECRET} in {value}"
    record = logging.makeLogRecord({"msg": "%s", "args": (said,), "exc_info": (ValueError, ValueError(said), None)})
    output.complain(said)
    for shown in (HumanFormatter().format(record), JsonFormatter().format(record), capsys.readouterr().err):
        assert "Failed to parse ***" in shown
        assert SECRET not in shown


def test_credentials_from_elsewhere_and_plain_addresses() -> None:
    assert scrubbed("cannot reach http://bob:secret@host:80/v1") == "cannot reach http://***@host:80/v1"
    assert scrubbed("cannot reach http://sk-123@host/v1") == "cannot reach http://***@host/v1"
    assert (
        scrubbed("cannot reach http://host/v1?v=1&api_key=sk-1&x=2")
        == "cannot reach http://host/v1?v=1&api_key=***&x=2"
    )
    assert scrubbed("unknown option ?sentinel_password=a'") == "unknown option ?sentinel_password=***'"
    assert scrubbed("connects to redis://worker@host:6379/0") == "connects to redis://worker@host:6379/0"
    assert scrubbed("GET /v1/models?key_only=1 and max_tokens=5, ?tokens=5") == (
        "GET /v1/models?key_only=1 and max_tokens=5, ?tokens=5"
    )
    assert scrubbed("listens on http://127.0.0.1:8000, mail a@b.example") == (
        "listens on http://127.0.0.1:8000, mail a@b.example"
    )


def test_an_address_with_an_at_sign_in_its_path_is_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOMEPAGE", "https://models.example/chat/@acme")
    said = "cannot reach models.example for /v1/chat/completions"
    assert scrubbed(said) == said


@pytest.mark.parametrize(
    ("flag", "value"),
    [("--cors-origins", f"https://u:{SECRET}@x"), ("--allowed-hosts", f"u:{SECRET}@x")],
)
def test_a_wrong_setting_with_credentials(capsys: pytest.CaptureFixture[str], flag: str, value: str) -> None:
    assert main.run(["frontend", flag, value]) == 2
    said = capsys.readouterr().err
    assert SECRET not in said
    assert flag[2:].replace("-", "_").upper() in said


def test_sentinels_out_of_reach_are_one_short_line(capsys: pytest.CaptureFixture[str]) -> None:
    url = f"redis+sentinel://:{SECRET}@127.0.0.1:1/main?sentinel_password={SECRET}"
    assert main.run(["ps", "--redis-url", url]) == 1
    said = capsys.readouterr().err
    assert "'main'" in said
    assert "<" not in said
