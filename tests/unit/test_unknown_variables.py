"""An environment variable that looks like a setting and is none."""

from __future__ import annotations

import pytest

from lifecycle.cli.main import run

OUT_OF_REACH = ["--redis-url", "redis://127.0.0.1:1/0"]


def test_an_unknown_variable_is_warned_of_with_the_nearest_name(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIFECYCLE_NAMESPCE", "x")
    monkeypatch.setenv("LIFECYCLE_ZZZZZZ", "x")
    monkeypatch.setenv("LIFECYCLE_PORT", "tcp://10.0.0.1:8000")  # Kubernetes sets it for a Service of this name
    run(["ps", *OUT_OF_REACH])
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3, lines
    assert "LIFECYCLE_NAMESPCE" in lines[0]
    assert "did you mean LIFECYCLE_NAMESPACE?" in lines[0]
    assert "LIFECYCLE_ZZZZZZ" in lines[1]
