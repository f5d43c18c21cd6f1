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
        ("LIFECYCLE_OPENAI_BASE_URL", f"http://bob:{SECRET}@host/v1"),
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
    assert scrubbed("listens on http://127.0.0.1:8000, mail a@b.example") == (
        "listens on http://127.0.0.1:8000, mail a@b.example"
    )


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
