"""A command whose output cannot be written fails with one line, and silently when its reader has gone."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

MAIN = "from lifecycle.cli.main import main; main()"
COMMANDS = ("keys new --name a", "--version")


def failed(arguments: str, unbuffered: str, where: str = "", stdout: int | None = None) -> tuple[int, str]:
    """Run a command with its output there, and return its exit code and what it has said."""
    ended = subprocess.run(
        ["sh", "-c", f'exec "$0" -c "$1" {arguments} {where}', sys.executable, MAIN],
        env=os.environ | {"PYTHONUNBUFFERED": unbuffered},
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        timeout=60,
    )
    return ended.returncode, ended.stderr


@pytest.mark.parametrize("arguments", COMMANDS)
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize(
    ("where", "reason"), [("> /dev/full", "No space left on device"), (">&-", "Bad file descriptor")]
)
def test_a_full_disk_and_a_closed_output_are_told(arguments: str, unbuffered: str, where: str, reason: str) -> None:
    said = f"lifecycle: the output cannot be written: {reason}\n"
    assert failed(arguments, unbuffered, where) == (1, said)


@pytest.mark.parametrize("arguments", COMMANDS)
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_has_gone_is_not_told(arguments: str, unbuffered: str) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        assert failed(arguments, unbuffered, stdout=writing) == (1, "")
    finally:
        os.close(writing)
