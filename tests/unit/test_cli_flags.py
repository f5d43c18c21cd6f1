"""Flags of a command that has subcommands, such as `replicas`."""

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
