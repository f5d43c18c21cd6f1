"""Flags before and behind a subcommand, and the one line that refuses a wrong one."""

from __future__ import annotations

import pytest

from lifecycle.cli.main import run


def test_flags_before_a_subcommand_apply_to_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIFECYCLE_NO_SUCH", "1")
    assert run(["replicas", "--redis-url", "redis://127.0.0.1:2", "drain", "worker-1"]) == 1
    warning, refusal = capsys.readouterr().err.splitlines()
    assert "LIFECYCLE_NO_SUCH" in warning
    assert "127.0.0.1:2" in refusal


def test_flags_behind_a_subcommand_take_precedence(capsys: pytest.CaptureFixture[str]) -> None:
    before, behind = ["--redis-url", "redis://127.0.0.1:2"], ["--redis-url", "redis://127.0.0.1:1"]
    assert run(["replicas", *before, "drain", "worker-1", *behind]) == 1
    assert "127.0.0.1:1" in capsys.readouterr().err


def test_only_the_wrong_setting_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["frontend", "--namespace", "a b"]) == 2
    said = capsys.readouterr().err
    assert "LIFECYCLE_NAMESPACE" in said
    assert "SHARDS" not in said


@pytest.mark.parametrize(
    ("engine", "named"),
    [("nosuch", "nosuch"), ("nosuch:generate", "nosuch"), ("openai", "LIFECYCLE_OPENAI_BASE_URL")],
)
def test_up_starts_nothing_without_its_engine(capsys: pytest.CaptureFixture[str], engine: str, named: str) -> None:
    assert run(["up", "--model", "m", "--engine", engine]) == 2
    said = capsys.readouterr()
    assert (said.out, said.err.count("\n"), named in said.err) == ("", 1, True)
