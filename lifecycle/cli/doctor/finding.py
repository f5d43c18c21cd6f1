"""Define the finding of one of doctor's checks."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

REPAIR = "run 'lifecycle doctor --repair'"


class Level(StrEnum):
    """How serious a finding is: OK needs nothing, WARN should be looked at, FAIL breaks a promise."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


class Finding(NamedTuple):
    """One result of a check. `advice` says what to do; it is empty for an OK finding."""

    level: Level
    check: str
    message: str
    advice: str = ""


def ok(check: str, message: str) -> Finding:
    """Return a finding that needs no action."""
    return Finding(Level.OK, check, message)


def warn(check: str, message: str, advice: str) -> Finding:
    """Return a finding that an operator should look at."""
    return Finding(Level.WARN, check, message, advice)


def fail(check: str, message: str, advice: str) -> Finding:
    """Return a finding that must be acted on; `doctor` then exits 1."""
    return Finding(Level.FAIL, check, message, advice)
